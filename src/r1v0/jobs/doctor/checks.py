"""What a record says about the run's learning: one function a question, each with the figures that answer it.

Decides: a finding needs a figure, and a threshold that is read in one line of code. Watchers of collapse are those of
health.py, played back over the rows, so that the doctor says of any run what a run of today would have said itself.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from r1v0.base.stats import number, numbers, unpaired_difference, wilson
from r1v0.config import is_own_reward
from r1v0.jobs.doctor.record import SPAN, Record, Row
from r1v0.report.status import share
from r1v0.runs.health import Alarm, watch_rows
from r1v0.runs.manifest import checkpoints_in, place
from r1v0.runs.watchers import TRUNCATED

CUT_OFF = 0.15
"""the share of answers that may be cut off without a word"""

Mark = Literal["problem", "warning", "ok"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer: how bad, about what, and in plain words with its figure."""

    mark: Mark
    topic: str
    text: str


def problem(topic: str, text: str) -> Finding:
    """Something is wrong, and the run or its numbers suffer."""
    return Finding("problem", topic, text)


def warning(topic: str, text: str) -> Finding:
    """Something to look at."""
    return Finding("warning", topic, text)


def ok(topic: str, text: str) -> Finding:
    """Looked at, and well."""
    return Finding("ok", topic, text)


def learning(record: Record) -> Iterator[Finding]:
    """Whether held-out accuracy rose from the first evaluation to the last."""
    rows = record.held_out()
    if len(rows) < 2 or rows[-1]["step"] <= rows[0]["step"]:
        first, last = record.first("reward/mean"), record.last("reward/mean")
        if len(record.metrics) >= 2 * SPAN and first is not None and last is not None:
            yield warning(
                "learning",
                f"no two held-out evaluations to compare; training reward went from {first:.2f} to "
                f"{last:.2f}. Set eval.on",
            )
        return
    gain, low, high, kind = _gain(rows[0], rows[-1])
    text = (
        f"{rows[-1].get('dataset')}: accuracy {share(number(rows[0]['accuracy']))} at step {rows[0]['step']}, "
        f"{share(number(rows[-1]['accuracy']))} at step {rows[-1]['step']}; gain {gain:+.3f} [{low:+.3f}, "
        f"{high:+.3f}] ({kind})"
    )
    if record.config.reward.control == "random":
        yield (problem if low > 0 else ok)("learning", f"a control with random rewards, which must not learn. {text}")
    elif high < 0:
        yield problem("learning", f"worse than at the start. {text}")
    elif low <= 0:
        yield warning("learning", f"no gain is shown: its interval holds 0. {text}")
    else:
        yield ok("learning", text)


def collapse(record: Record) -> Iterator[Finding]:
    """Whether held-out accuracy fell from its best by more than both intervals."""
    rows = record.held_out()
    if len(rows) < 3 or record.config.reward.control == "random":
        return
    best, last = max(rows, key=lambda row: float(row["accuracy"])), rows[-1]
    low, high = number(best.get("ci_low")), number(last.get("ci_high"))
    figures = (
        f"held-out accuracy {share(number(last['accuracy']))} at the end (step {last['step']}), "
        f"{share(number(best['accuracy']))} at its best (step {best['step']})"
    )
    if low is None or high is None:
        return
    if high < low:
        again = "train again with a lower optimizer.lr, or health.action=rollback"
        yield problem(
            "collapse", f"{figures}: a fall beyond both intervals. {_best_left(record, int(best['step']))}; {again}"
        )
    else:
        yield ok("collapse", f"none: {figures}, within the intervals")


def _best_left(record: Record, step: int) -> str:
    """Which weights to use where those of `step` were the best."""
    if step == 0:
        return "The model that the run began with is the best of it"
    kept = [place(path)[0] for path in checkpoints_in(record.folder)]
    if step in kept:
        return f"Use the checkpoint of step {step}"
    if not kept:
        return f"No checkpoint is left, so none of step {step}"
    near = min(kept, key=lambda other: abs(other - step))
    return (
        f"No checkpoint of step {step} was kept; the nearest is of step {near} (checkpoints.keep_best keeps the best)"
    )


def alarms(record: Record) -> Iterator[Finding]:
    """The watchers of health.py over the run's rows: those that were raised and those that were not."""
    steps = {row["step"] for row in record.health if row.get("action") == "rollback"}
    _, found = watch_rows(record.config, record.metrics, steps)
    raised: dict[str, list[Alarm]] = {}
    for alarm in found:
        raised.setdefault(alarm.kind, []).append(alarm)
    for kind, same in raised.items():
        when = ", ".join(str(alarm.step) for alarm in same[:5]) + (", ..." if len(same) > 5 else "")
        mark: Mark = "warning" if kind in ("grad_spike", "not_finite") else "problem"
        yield Finding(mark, kind.replace("_", " "), f"at step {when}: {same[-1].message}")
    if not raised and len(record.metrics) >= 2 * SPAN:
        first, last = record.first("policy/entropy"), record.last("policy/entropy")
        norm, apart = record.last("policy/grad_norm"), record.last("policy/mismatch_kl")
        if None not in (first, last, norm, apart):
            yield ok(
                "health",
                f"no alarm; entropy {first:.2g} to {last:.2g} nats, gradient norm {norm:.2g}, "
                f"sampler and trainer {apart:.1g} nats apart",
            )
    for row in record.health:
        if row.get("action") in ("stop", "rollback"):
            back = f" to step {row.get('to_step')}, learning rate x {row.get('lr_scale')}" if "to_step" in row else ""
            yield problem(str(row["action"]), f"at step {row['step']}{back}, because of: {row.get('kind')}")


def updates(record: Record) -> Iterator[Finding]:
    """Updates that were skipped or clipped."""
    skips = record.total("policy/skipped")
    if skips:
        steps = sum(1 for value in numbers(record.metrics, "policy/skipped") if value)
        yield warning(
            "skipped",
            f"{skips:.0f} updates in {steps} steps were skipped: their loss or gradient was not finite",
        )
    clipped = record.last("policy/clip_frac")
    if clipped is not None and clipped > 0.2:
        yield warning(
            "clipping",
            f"{share(clipped)} of tokens are clipped: fewer updates per batch (grpo.minibatches, grpo.epochs), "
            "or a lower optimizer.lr",
        )


def flat_groups(record: Record) -> Iterator[Finding]:
    """How many groups teach nothing, and on which side."""
    flat, right, wrong = (record.last(f"groups/{name}") for name in ("flat_frac", "all_correct_frac", "all_wrong_frac"))
    if flat is None or right is None or wrong is None:
        return
    text = (
        f"{share(flat)} of groups were flat in the last {SPAN} steps ({share(right)} all right, {share(wrong)} "
        "all wrong)"
    )
    if flat <= 0.7:
        yield ok("flat groups", text)
        return
    own = record.config.reward.name
    too_hard = "the problems are too hard, or the template is wrong: easier ones, or a larger grpo.group_size"
    if is_own_reward(own) and not record.total("reward/mean"):
        too_hard = f"your own reward, {own}, gave 0 to every answer: try it on one that you know to be right"
    advice = "the problems are used up: take harder ones (data.name, data.levels)" if right > wrong else too_hard
    yield Finding("problem" if flat > 0.95 else "warning", "flat groups", f"{text}, so little is learned; {advice}")


def truncation(record: Record) -> Iterator[Finding]:
    """How many completions ran into the length limit, in training and in the last evaluation of each dataset."""
    limit = record.config.sampling.max_new_tokens
    newest = {str(row.get("dataset")): row for row in record.evals}
    cuts = {name: cut for name, row in newest.items() if (cut := number(row.get("truncated_frac"))) is not None}
    held_out = ", ".join(f"{share(cut)} of {name}" for name, cut in cuts.items())
    many = {name: cut for name, cut in cuts.items() if cut > CUT_OFF}
    if many:
        tokens = record.config.eval.max_new_tokens or limit
        key = "eval.max_new_tokens" if record.config.eval.max_new_tokens else "sampling.max_new_tokens"
        yield warning(
            "truncation",
            f"of the held-out answers {', '.join(f'{share(cut)} of {name}' for name, cut in many.items())} "
            f"were cut off at {tokens} tokens "
            f"in the last evaluation and count as wrong: with a larger {key} accuracy may be higher, and the "
            "growth of length is "
            "measured up to that limit only",
        )
    cut = record.last("length/truncated_frac")
    if cut is None:
        return
    text = f"{share(cut)} of completions were cut off at {limit} tokens in the last {SPAN} steps"
    if held_out and not many:
        text += f"; of held-out answers {held_out}"
    if cut <= CUT_OFF:
        yield ok("truncation", text)
    elif cut <= TRUNCATED or "truncated" in record.config.health.ignore:  # above it the watcher speaks
        yield warning(
            "truncation",
            f"{text}; they score 0. Raise sampling.max_new_tokens, unless only wrong answers grow",
        )


def grading(record: Record) -> Iterator[Finding]:
    """Verdicts that were not reached, and those on which string and symbolic grading disagree."""
    graded = record.graded
    if not graded:
        return
    timeouts, crashes = record.total("verify/timeouts"), record.total("verify/crashes")
    failed = (timeouts + crashes) / graded
    text = f"{timeouts:.0f} timeouts and {crashes:.0f} crashes in about {graded:.0f} gradings"
    if failed > 0.001:
        why = _why_not_graded(record)
        text += f"; most of them {why}" if why else ""
        advice = (
            "raise reward.timeout_s or reward.workers"
            if timeouts >= crashes
            else f"look at the function of {record.config.reward.name}"
            if why.startswith("ended its process")
            else "raise reward.memory_mb"
        )
        yield Finding(
            "problem" if failed > 0.01 else "warning", "grading", f"{text} ({share(failed)}), scored 0: {advice}"
        )
    else:
        yield ok("grading", text)
    apart = record.total("verify/disagreements") / graded
    first, last = _gap(record.metrics[:SPAN]), _gap(record.metrics[-SPAN:])
    if first is not None and last is not None and last - first > 0.1 and len(record.metrics) >= 2 * SPAN:
        yield warning(
            "strict grading",
            f"answers right by equivalence but not by string went from {share(first)} to {share(last)}: "
            "the format drifts, or the grader is generous; read rollouts/",
        )
    elif apart > 0.01:
        yield ok("strict grading", f"{share(apart)} of answers are right by equivalence and not by string equality")


def _why_not_graded(record: Record) -> str:
    """What grading said most often, in the last steps in which it failed; nothing if the run did not keep it."""
    failed = [
        row["step"]
        for row in record.metrics
        if any(numbers([row], f"verify/{kind}")[:1] > [0] for kind in ("timeouts", "crashes"))
    ]
    rows = [row for step in failed[-3:] for row in record.rollouts(step)]
    reasons = Counter(row["why"] for row in rows if isinstance(row.get("why"), str) and row["why"])
    return reasons.most_common(1)[0][0][:200] if reasons else ""


def _gap(rows: list[Row]) -> float | None:
    correct, strict = numbers(rows, "reward/correct"), numbers(rows, "reward/strict")
    return (sum(correct) - sum(strict)) / len(rows) if rows and len(correct) == len(strict) == len(rows) else None


def _gain(first: Row, last: Row) -> tuple[float, float, float, str]:
    """(gain, low, high, how) of two evaluations: as logged, paired by problem, or from their own intervals."""
    logged = [number(last.get(key)) for key in ("gain", "gain_low", "gain_high")]
    if logged[0] is not None and logged[1] is not None and logged[2] is not None:
        return logged[0], logged[1], logged[2], "paired by problem, 95 %"
    return *unpaired_difference(_interval(first), _interval(last)), "unpaired, 95 %"


def _interval(row: Row) -> tuple[float, float, float]:
    """An evaluation's accuracy with its 95 % interval; with Wilson's where none is logged."""
    p, low, high = float(row["accuracy"]), number(row.get("ci_low")), number(row.get("ci_high"))
    if low is not None and high is not None:
        return p, low, high
    return p, *wilson(p, max(1.0, number(row.get("problems")) or 1.0))


LEARNING: tuple[Callable[[Record], Iterator[Finding]], ...] = (
    learning,
    collapse,
    alarms,
    updates,
    flat_groups,
    truncation,
    grading,
)
