"""A training step that was stopped half way: what a later process needs to end it as if nothing had happened.

    checkpoints/step-00050.03/trainer/pending.json.gz   the 51st step: its graded groups and three finished updates

Decides: sampling is the dear half of a step, so it is not done again. Groups go to disk with their token ids, and with
logprobs and scores as JSON's shortest decimals, which give the same floats back. An update that was begun and not
ended leaves nothing: it is computed again from the weights before it.
"""

import dataclasses
import gzip
import json
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1v0.base.errors import UserError
from r1v0.base.writing import write_atomic
from r1v0.grpo.readings import UpdateReadings
from r1v0.grpo.step import StepInProgress
from r1v0.rollouts.collect import all_finite
from r1v0.types import Completion, Group, Problem, Prompt, Rollout, Score

NAME = "trainer/pending.json.gz"
MAX_BYTES = 4 << 30


def write_step(checkpoint: Path, step: StepInProgress) -> None:
    """Write a step that is sampled into a new checkpoint. Raises OSError."""
    useful = {id(group) for group in step.groups}
    content = {
        "groups": [_group(group) for group in step.sampled],
        "useful": [i for i, group in enumerate(step.sampled) if id(group) in useful],
        "cursor": step.cursor,
        "sample_s": step.sample_s,
        "verify_s": step.verify_s,
        "wait_s": step.wait_s,
        "counted": step.counted,
        "done": [dataclasses.asdict(update) for update in step.done],
        "spent_s": time.perf_counter() - step.began,
    }
    packed = gzip.compress(json.dumps(content).encode("ascii"), compresslevel=1, mtime=0)
    write_atomic(checkpoint / NAME, packed)


def load_step(checkpoint: Path, number: int) -> StepInProgress | None:
    """The step, of that number, in which the checkpoint stands; None if it stands between two. Raises UserError for
    a damaged file."""
    path = checkpoint / NAME
    if not path.is_file():
        return None
    try:
        with gzip.open(path) as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError
        raw = json.loads(data)
        sampled = [_parse_group(group) for group in raw["groups"]]
        return StepInProgress(
            number,
            sampled,
            [sampled[i] for i in raw["useful"]],
            int(raw["cursor"]),
            float(raw["sample_s"]),
            float(raw["verify_s"]),
            float(raw["wait_s"]),
            dict(raw["counted"]),
            [UpdateReadings(**update) for update in raw["done"]],
            time.perf_counter() - float(raw["spent_s"]),
            all_finite(sampled),
        )
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({error.__class__.__name__}): remove {checkpoint} to go on from an earlier checkpoint"
        ) from None


def _group(group: Group) -> dict[str, Any]:
    prompt = group.prompt
    return {
        "problem": dataclasses.asdict(prompt.problem),
        "prompt": prompt.text,
        "token_ids": prompt.token_ids,
        "rollouts": [
            {
                "completion": dataclasses.asdict(rollout.completion),
                "text": rollout.text,
                "score": dataclasses.asdict(rollout.score),
            }
            for rollout in group.rollouts
        ],
    }


def _parse_group(raw: Mapping[str, Any]) -> Group:
    prompt = Prompt(Problem(**raw["problem"]), raw["prompt"], raw["token_ids"])
    return Group(
        prompt,
        [Rollout(prompt, Completion(**r["completion"]), r["text"], Score(**r["score"])) for r in raw["rollouts"]],
    )
