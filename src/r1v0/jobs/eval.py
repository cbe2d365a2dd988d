"""`r1v0 eval`: a model on named datasets under one or several templates, every answer kept.

    OUT/eval.json      what is measured        OUT/evals.jsonl  the figures, a row for each template and dataset
    OUT/answers.jsonl  one graded answer a line

Decides: the answers are the result, the figures follow from them. Each is appended as it is graded, and all are put in
order at the end. A stopped evaluation goes on in the same folder: answers that are there are not sampled again, and
since each has a random key of its own the end is the same. Several templates are compared because a wrong one halves a
base model's score, and its repair looks like learning.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from r1v0.base import lock
from r1v0.base.errors import UserError
from r1v0.base.interrupts import stoppable
from r1v0.base.reading import read_json
from r1v0.base.writing import append_whole, write_atomic, writing
from r1v0.config import with_template
from r1v0.grpo import parallel
from r1v0.models.device import choose_sampling, set_threads
from r1v0.models.device import settled as on_this_device
from r1v0.models.loading import load, resolve_model
from r1v0.rollouts.collect import past_positions, reward_settings, verifiers
from r1v0.rollouts.evaluate import answer_problems, gain, summarise
from r1v0.rollouts.gradable import FIRST, need_gradable, unreadable
from r1v0.runs import runlog
from r1v0.runs.progress import Progress
from r1v0.runs.settings import Asked, Settled, asked
from r1v0.runs.written import EVALUATION_ANSWERS, Answer, evaluation_answers, kept_answers, kept_by, matching
from r1v0.tasks.datasets import check as check_data
from r1v0.tasks.datasets import eval_name, load_eval
from r1v0.tasks.prompts import make_prompts
from r1v0.types import Problem

PLAN = runlog.EVAL_PLAN


def measure(
    model: str,
    settled: Settled,
    templates: Sequence[str],
    out: Path,
    progress: Progress,
    against: Path | None = None,
) -> tuple[list[str], list[dict[str, Any]]]:
    """Evaluate `model` on eval.on under each template, each dataset with its own limits and reward
    (`settings.asked`); a line for each dataset that says what was used, and the rows of evals.jsonl.

    Raises UserError for an unknown model, dataset or template, a reward that cannot read its dataset, or an `out`
    that holds another evaluation; Interrupted when stopped, with every answer that has ended on disk.
    """

    def keep(answer: Answer) -> None:
        append_whole(kept_by(out, parallel.rank()), _line(answer))

    config = on_this_device(settled.config)
    settled = settled.of(config)
    set_threads(config)
    check_data(config.eval.on)
    folder = resolve_model(model)
    how = {eval_name(spec): asked(settled, spec) for spec in config.eval.on}
    evals = {eval_name(spec): load_eval(spec, _most(how, spec)) for spec in config.eval.on}
    rewards = {name: reward_settings(ask.config, name) for name, ask in how.items()}
    need_gradable(rewards, {name: problems[:FIRST] for name, problems in evals.items()}, progress.note)
    before = evaluation_answers(against) if against is not None else []
    policy = load(folder, *choose_sampling(config))
    for name, template in itertools.product(evals, templates):
        make_prompts(with_template(config, template).prompt, evals[name][:1], policy)  # one that fails leaves no folder
    told = [_told(name, how[name], problems, rewards[name].name, templates) for name, problems in evals.items()]
    rows = []
    with ExitStack() as stack, stoppable() as check, verifiers(rewards, progress.note) as graders:
        parallel.first(lambda: stack.enter_context(lock.hold(out)))
        written = {name: asdict(prompt) for name in templates if (prompt := with_template(config, name).prompt).text}
        plan = {"model": model, "templates": list(templates), "datasets": told, "config": settled.toml()}
        parallel.first(lambda: _open(out, plan | ({"prompts": written} if written else {})))
        done = parallel.together(lambda: evaluation_answers(out))
        for line in [settled.line, *filter(None, (_more(name, how[name]) for name in evals))]:
            progress.note(line)
        answers: list[Answer] = []
        for name, template in itertools.product(evals, templates):
            now = with_template(how[name].config, template)
            prompts = make_prompts(now.prompt, evals[name], policy)
            longest = max((len(prompt.token_ids) for prompt in prompts), default=0)
            if beyond := past_positions(policy, longest, now.eval.max_new_tokens):
                progress.note(f"warning: {name} ({template}): {beyond}; lower eval.max_new_tokens")
            if strange := unreadable(policy, prompts):
                progress.note(f"warning: {name} ({template}): {strange}")
            own = [answer for answer in done if (answer.dataset, answer.template) == (name, template)]
            own = answer_problems(policy, name, evals[name], now, graders[name], progress, check, own, keep)
            answers += own
            since = gain(matching(before, name, template), own)
            result = asdict(summarise(name, own)) | (asdict(since) if since else {})
            rows.append({"step": 0, "template": template} | result)
        parallel.first(lambda: _write(out, answers, rows))
    return told, rows


def _write(out: Path, answers: Sequence[Answer], rows: Sequence[Mapping[str, Any]]) -> None:
    """Put everything in order."""
    with writing(out):
        write_atomic(out / EVALUATION_ANSWERS, b"".join(map(_line, answers)))
        write_atomic(out / runlog.EVALS, b"".join(map(runlog.json_line, rows)))
        for path in kept_answers(out)[1:]:
            path.unlink()


def _most(how: Mapping[str, Asked], spec: str) -> int:
    return how[eval_name(spec)].config.eval.max_problems


def _told(name: str, ask: Asked, problems: Sequence[Problem], reward: str, templates: Sequence[str]) -> str:
    """math500: 500 problems x 1, at most 4096 tokens, reward math, template r1-zero, temperature 1.0"""
    limits = ask.config.eval
    words = f"template{'s' if len(templates) > 1 else ''} {', '.join(templates)}"
    tokens = f"at most {limits.max_new_tokens} tokens"
    return (
        f"{name}: {len(problems)} problems x {limits.samples}, {tokens}, reward {reward}, {words}, temperature "
        f"{limits.temperature:g}"
    )


def _more(name: str, ask: Asked) -> str:
    """What is said of a dataset whose problems are so few that one answer each tells little; mostly nothing."""
    samples = ask.config.eval.samples
    if samples >= ask.samples:
        return ""
    return (
        f"{name} has few problems: {ask.samples} answers per problem are recommended (--samples {ask.samples}), "
        f"and this takes {samples}"
    )


def _open(out: Path, plan: dict[str, Any]) -> None:
    """Make the folder, or check that it holds the same evaluation, and cut off a torn last line."""
    if (out / PLAN).is_file():
        held = read_json(out / PLAN)
        different = [key for key, value in plan.items() if held.get(key) != value]
        if different:
            raise UserError(
                f"{out} holds an evaluation with another {different[0]}: choose another --out, or ask for the "
                "same to go on with it"
            )
        for path in filter(Path.exists, kept_answers(out)):
            data = path.read_bytes()
            if not data.endswith(b"\n") and data:
                with writing(path):
                    write_atomic(path, data[: data.rfind(b"\n") + 1])
        return
    if any(path.name not in (lock.NAME, lock.SOFT) for path in out.iterdir()):
        raise UserError(f"{out} exists and holds no evaluation: choose another --out")
    with writing(out / PLAN):
        write_atomic(out / PLAN, (json.dumps(plan, indent=2) + "\n").encode("ascii"))


def _line(answer: Answer) -> bytes:
    return json.dumps(asdict(answer)).encode("ascii") + b"\n"
