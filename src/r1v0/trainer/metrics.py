"""The row of metrics.jsonl that a training step leaves, and its rollouts file. docs/metrics.md explains every key.

Decides: rates of correctness, length and reflection are over all rollouts that were sampled, also those of groups
that were replaced or dropped; policy/* are over the tokens that were trained on.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from r1v0.base.means import mean
from r1v0.grpo.step import StepInProgress
from r1v0.tasks.reflection import reflects
from r1v0.types import Group


def step_row(
    step: int, sampled: Sequence[Group], policy: Mapping[str, float], extra: Mapping[str, float]
) -> dict[str, Any]:
    """One step's metrics; `policy` holds those of the updates (grpo/readings.py), `extra` the verify/*, time/* and
    memory/* of the trainer."""
    rollouts = [rollout for group in sampled for rollout in group.rollouts]
    lengths = [len(rollout.completion.token_ids) for rollout in rollouts]
    correct = [rollout.score.correct for rollout in rollouts]
    finished = [rollout.completion.finish_reason == "stop" for rollout in rollouts]
    parts = {
        name: [r.score.parts.get(name, 0.0) for r in rollouts]
        for name in sorted({n for r in rollouts for n in r.score.parts})
    }
    row: dict[str, Any] = {
        "step": step,
        "reward/mean": mean(rollout.score.reward for rollout in rollouts),
        "reward/correct": mean(correct),
        "reward/strict": mean(rollout.score.strict for rollout in rollouts),
        # An own reward's name is a path and a function: its folder says nothing here.
        **{f"reward/{name.rpartition('/')[2]}": mean(values) for name, values in parts.items()},
        "length/mean": mean(lengths),
        "length/finished": mean(length for length, ended in zip(lengths, finished, strict=True) if ended),
        "length/correct": mean(length for length, ok in zip(lengths, correct, strict=True) if ok),
        "length/wrong": mean(length for length, ok in zip(lengths, correct, strict=True) if not ok),
        "length/truncated_frac": mean(not ended for ended in finished),
        "groups/sampled": len(sampled),
        "groups/flat_frac": mean(group.flat for group in sampled),
        "groups/all_correct_frac": mean(all(r.score.correct for r in group.rollouts) for group in sampled),
        "groups/all_wrong_frac": mean(not any(r.score.correct for r in group.rollouts) for group in sampled),
        "tokens/sampled": sum(lengths),
        **{name: value for name, value in policy.items() if name != "policy/kl"},
        "reflection/frac": mean(reflects(rollout.text) for rollout in rollouts),
    }
    return row | {name: value for name, value in policy.items() if name == "policy/kl"} | dict(extra)


def costs(step: StepInProgress, took: Sequence[Sequence[float]]) -> dict[str, float]:
    """The time/* and memory/* of a step; `took` are each process's seconds of training and of the step, most memory in
    GB, and seconds of waiting for others' gradients."""
    train, whole, memory, waits = zip(*took, strict=True)
    found = {
        "time/sample_s": step.sample_s,
        "time/verify_s": step.verify_s,
        "time/train_s": max(train),
        "time/step_s": max(whole),
        "memory/peak_gb": max(memory),
    }
    waited = {"time/sample_wait_s": step.wait_s, "time/train_wait_s": mean(waits)}
    return found | (waited if len(took) > 1 else {})


def rollout_records(groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """Each rollout as one JSON object, for rollouts/step-NNNNN.jsonl.gz."""
    for index, group in enumerate(groups):
        for sample, rollout in enumerate(group.rollouts):
            problem, score = rollout.prompt.problem, rollout.score
            yield {
                "dataset": problem.source,
                "problem": problem.id,
                "group": index,
                "sample": sample,
                "question": problem.question,
                "prompt": rollout.prompt.text,
                "gold": problem.answer,
                "completion": rollout.text,
                "extracted": score.extracted,
                "correct": score.correct,
                "strict": score.strict,
                "reward": score.reward,
                "tokens": len(rollout.completion.token_ids),
                "cut_off": rollout.completion.finish_reason == "length",
                "parts": score.parts,
                "failure": score.failure,
                "why": score.why,
            }
