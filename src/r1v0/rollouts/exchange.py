"""What processes tell each other of the completions that each of them sampled and graded.

Decides: token ids and logprobs travel as base64 of int32 and float32, which are exact (the sampler computes logprobs in
float32): 11 bytes per token, where lists of JSON numbers take 33.
"""

import base64
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from r1v0.base.means import mean
from r1v0.types import Completion, Score


@dataclass(frozen=True, slots=True)
class Part:
    """One process's part of a round of sampling: (prompt's index, sample's, completion, text, score) of each, the
    seconds of sampling and of grading left after it, and the verify/* of its verdicts."""

    done: list[tuple[int, int, Completion, str, Score]]
    sample_s: float
    verify_s: float
    counted: dict[str, int]


def packed(part: Part) -> dict[str, Any]:
    """What JSON can hold of it; `unpacked` undoes it."""
    return {
        "done": [
            [
                i,
                sample,
                _bytes("i", each.token_ids),
                _bytes("f", each.logprobs),
                each.finish_reason,
                text,
                asdict(score),
            ]
            for i, sample, each, text, score in part.done
        ],
        "seconds": [part.sample_s, part.verify_s],
        "counted": part.counted,
    }


def unpacked(raw: Any) -> Part:
    """A part of what `packed` made of it."""
    done = [
        (i, sample, Completion(_numbers("i", tokens), _numbers("f", logprobs), reason), text, Score(**score))
        for i, sample, tokens, logprobs, reason, text, score in raw["done"]
    ]
    sample_s, verify_s = raw["seconds"]
    return Part(done, sample_s, verify_s, raw["counted"])


class Spent(NamedTuple):
    """What a round of sampling took: seconds of sampling and of grading left after it, where they took longest; seconds
    that a process waited for the slowest one, on average; and the verify/* of all verdicts."""

    sample_s: float
    verify_s: float
    wait_s: float
    counted: dict[str, int]

    @classmethod
    def by(cls, parts: Sequence[Part]) -> "Spent":
        """By all processes."""
        whole = [part.sample_s + part.verify_s for part in parts]
        slowest = parts[whole.index(max(whole))]
        counted = {name: sum(part.counted[name] for part in parts) for name in parts[0].counted}
        return cls(slowest.sample_s, slowest.verify_s, max(whole) - mean(whole), counted)


def _bytes(kind: str, numbers: Sequence[float]) -> str:
    return base64.b64encode(array(kind, numbers).tobytes()).decode("ascii")


def _numbers(kind: str, text: str) -> list[Any]:
    return array(kind, base64.b64decode(text)).tolist()
