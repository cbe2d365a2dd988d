"""Signs that the policy found a reward which is not the task.

Decides: each is a pair of figures that should move together and do not. They are warnings: a reader has to look into
rollouts/, where a hack is plain to see.
"""

from collections.abc import Callable, Iterator, Sequence

from r1v0.base.stats import number
from r1v0.jobs.doctor.checks import Finding, ok, problem, warning
from r1v0.jobs.doctor.record import SPAN, Record, Row
from r1v0.report.status import share

RISE = 0.1
"""least change of a share that counts as one"""


def reward_without_accuracy(record: Record) -> Iterator[Finding]:
    """Training reward up, held-out accuracy not."""
    rise, rows = _rise(record, "reward/mean"), record.held_out()
    if rise is None or rise < RISE or len(rows) < 2:
        return
    gain = float(rows[-1]["accuracy"]) - float(rows[0]["accuracy"])
    high = number(rows[-1].get("gain_high"))
    if gain < rise / 4 and (gain if high is None else high) < rise / 2:
        yield problem(
            "reward hacking",
            f"mean reward rose by {rise:.2f} and held-out accuracy by {gain:+.2f} only: the policy learns "
            "something that evaluation does not count, or learns its problems by heart. Read rollouts/",
        )


def reward_without_answers(record: Record) -> Iterator[Finding]:
    """Training reward up by its extra parts, right answers not."""
    rise, right = _rise(record, "reward/mean"), _rise(record, "reward/correct")
    if rise is None or right is None or rise < RISE or right > rise / 4 or record.config.reward.control == "random":
        return
    keys = {key for row in record.metrics[-SPAN:] for key in row if key.startswith("reward/")}
    parts = {key: _rise(record, key) for key in sorted(keys - {"reward/mean", "reward/correct", "reward/strict"})}
    grown = ", ".join(f"{key.partition('/')[2]} {value:+.2f}" for key, value in parts.items() if value and value > RISE)
    yield problem(
        "reward hacking",
        f"mean reward rose by {rise:.2f} and the share of right answers by {right:+.2f} only"
        f"{f' (parts that rose: {grown})' if grown else ''}. Lower the weights in reward.extra",
    )


def lengths(record: Record) -> Iterator[Finding]:
    """Answers that shrink to nothing, and wrong ones that alone grow."""
    before, now = record.first("length/mean"), record.last("length/mean")
    if len(record.metrics) < 2 * SPAN or before is None or now is None:
        return
    if now < before / 3:
        yield warning(
            "short answers",
            f"responses shrank from {before:.0f} to {now:.0f} tokens: the model does not use length, or was taught "
            "not to. Is sampling.max_new_tokens near the base model's own length?",
        )
    wrong, right = _growth(record, "length/wrong"), _growth(record, "length/correct")
    if wrong is None or right is None:
        return
    if wrong > 1.5 and right < 1.1:
        yield warning(
            "length",
            f"wrong answers grew {wrong:.1f} times, right ones {right:.1f} times: those are loops, not search. "
            'Use grpo.aggregation="token" or "constant"; read rollouts/',
        )
    else:
        yield ok(
            "length",
            f"mean length {before:.0f} to {now:.0f} tokens; wrong answers grew {wrong:.1f} times, right ones "
            f"{right:.1f} times",
        )


def duplicates(record: Record) -> Iterator[Finding]:
    """Completions of one group that are the same text."""
    steps = [int(row["step"]) for row in record.metrics]
    if len(steps) < 2 * SPAN:
        return
    before, now = (_repeated(record.rollouts(step)) for step in (steps[0], steps[-1]))
    if before is None or now is None:
        return
    text = (
        f"{share(now)} of completions repeat another of their group word for word at step {steps[-1]} "
        f"({share(before)} at step {steps[0]})"
    )
    if now > 0.5 and now > before + 0.2:
        yield warning("duplicates", f"{text}: the policy has little left to choose from; see entropy")
    else:
        yield ok("duplicates", text)


def _repeated(rows: Sequence[Row]) -> float | None:
    """The share of rollouts whose text occurred in their group before; None of nothing."""
    seen = [(row.get("group"), row.get("completion")) for row in rows if isinstance(row.get("completion"), str)]
    seen = [pair for pair in seen if isinstance(pair[0], int)]
    return 1 - len(set(seen)) / len(seen) if seen else None


def _rise(record: Record, key: str) -> float | None:
    """How much a metric's mean over SPAN steps rose from the start to now; None in a run too short to tell."""
    first, last = record.first(key), record.last(key)
    return None if first is None or last is None or len(record.metrics) < 2 * SPAN else last - first


def _growth(record: Record, key: str) -> float | None:
    first, last = record.first(key), record.last(key)
    return None if not first or last is None else last / first


HACKING: tuple[Callable[[Record], Iterator[Finding]], ...] = (
    reward_without_accuracy,
    reward_without_answers,
    lengths,
    duplicates,
)
