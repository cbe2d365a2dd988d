"""Signs of collapse, seen in the rows of metrics.jsonl alone.

Decides: a watcher reads logged rows and nothing else, so a resumed run finds what the uninterrupted one found, and
`r1v0 doctor` finds in an old run what the run would have said. A figure is a mean over WINDOW steps, because one step
is noise; it is held against the run's own past wherever there is one, because what is healthy differs from model to
model by tenfold. An alarm is raised where its condition begins, and once more only after it was gone for a window.
"""

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, variance
from typing import Any

from r1v0.base.command import typed
from r1v0.base.stats import mean, number, numbers
from r1v0.config import Config, is_own_reward

Row = Mapping[str, Any]

WINDOW = 8
"""steps of every mean"""
START = 5
"""steps that a run's own start is the mean of; fewer than it takes to collapse"""
PAST = 50
"""steps before the window that a usual gradient norm is the median of"""
SPIKES = 3
"""so many of a window's steps must be spikes: a single one is clipped and does no harm"""
EARLY_ENTROPY, EARLY_LENGTH, EARLY_GROUPS = 0.5, 10.0, 8.0
"""marks of the first steps, against the very first: entropy under a half, length over ten times, and no right answer where
eight groups with one are to be expected"""
SIGMA = 4.0
"""a reward has fallen if it fell by so many standard errors: the best of many means is a lucky one"""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One sign of collapse. `value` is the figure, `limit` what it was held against, `message` one line for people.
    `fatal`: the run cannot go on as it is, whatever health.action says."""

    step: int
    kind: str
    value: float
    limit: float
    message: str
    fatal: bool = False


class Watch:
    """All watchers over one run. `add` each row of metrics.jsonl in its order, those of a resumed run's past too."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rows: list[Row] = []
        self.since = 0  # rows before it are of weights that were given up
        self.last: dict[str, int] = {}  # kind -> number of rows when its condition last held
        self.best = -math.inf, 0.0, 0  # of the windows before this one: mean reward, its variance, step
        self.skipped = 0  # steps in a row

    def add(self, row: Row) -> list[Alarm]:
        """The alarms that begin with this step, most of the time none."""
        self.rows.append(row)
        self.skipped = self.skipped + 1 if number(row.get("policy/skipped")) else 0
        self._remember_best()
        found = []
        for kind, watcher in WATCHERS.items():
            held = watcher(self)
            if held is None:
                continue
            value, limit, message = held
            fatal = kind == "skipped"
            if fatal or len(self.rows) - self.last.get(kind, -WINDOW) > WINDOW:
                found.append(Alarm(int(row["step"]), kind, value, limit, message, fatal))
            self.last[kind] = len(self.rows)
        return found

    def rolled_back(self) -> None:
        """The weights of the rows so far were given up: what happened lately no longer counts, start and best do."""
        self.since, self.last, self.skipped = len(self.rows), {}, 0

    def window(self, key: str) -> list[float]:
        """A metric's values in the last WINDOW steps; empty while there are fewer, or where half of them have none."""
        values = numbers(self.rows[max(self.since, len(self.rows) - WINDOW) :], key)
        return values if len(self.rows) - self.since >= WINDOW and 2 * len(values) >= WINDOW else []

    def recent(self, key: str) -> float | None:
        """The mean of `window`; None where that is empty."""
        values = self.window(key)
        return mean(values) if values else None

    def start(self, key: str) -> float | None:
        """A metric's mean over the run's first steps; None where they have none, or while they are part of `recent`."""
        values = numbers(self.rows[:START], key)
        return mean(values) if len(self.rows) >= WINDOW + START and values else None

    def _remember_best(self) -> None:
        """The best mean reward of a whole window that ended before the present one began."""
        values = numbers(self.rows[-2 * WINDOW : -WINDOW], "reward/mean")
        if len(values) == WINDOW and mean(values) > self.best[0]:
            self.best = mean(values), variance(values), int(self.rows[-WINDOW - 1]["step"])


Held = tuple[float, float, str] | None  # (value, limit, message) of a condition that holds


def early_collapse(watch: Watch) -> Held:
    """The first updates wreck the policy, before there are windows to compare. Absolute marks: in healthy runs entropy stayed
    over .6 of the first step's and length under 2.5 times, 13 steps long (results/)."""
    if not 2 <= len(watch.rows) <= WINDOW + START or watch.since:
        return None
    first, now = watch.rows[0], watch.rows[-1]
    after = f"after {len(watch.rows) - 1} step{'s' * (len(watch.rows) > 2)}"
    lr = watch.config.optimizer.lr
    cause = (
        f"the first updates wreck the policy, so optimizer.lr ({lr:g}) is too high for it. Start again with a quarter of that "
        "or less, and with optimizer.warmup_steps=10"
    )
    was, entropy = number(first.get("policy/entropy")), number(now.get("policy/entropy"))
    if watch.config.health.entropy_low and was and entropy is not None and entropy < EARLY_ENTROPY * was:
        return (
            entropy,
            EARLY_ENTROPY * was,
            f"entropy fell from {was:.2g} to {entropy:.2g} nats a token {after}: {cause}",
        )
    short, length = number(first.get("length/mean")), number(now.get("length/mean"))
    if watch.config.health.max_truncated and short and length is not None and length > EARLY_LENGTH * short:
        return length, EARLY_LENGTH * short, f"answers grew from {short:.0f} to {length:.0f} tokens {after}: {cause}"
    groups, wrong = number(now.get("groups/sampled")), number(first.get("groups/all_wrong_frac"))
    if watch.config.health.max_reward_fall and groups is not None and wrong is not None:
        expected = groups * (1 - wrong)
        if expected >= EARLY_GROUPS and number(now.get("groups/all_wrong_frac")) == 1:
            return (
                0.0,
                expected,
                f"no answer is right {after}, in {expected:.0f} of {groups:.0f} groups one was to be expected: {cause}",
            )
    return None


def entropy_low(watch: Watch) -> Held:
    """The policy narrows to one answer."""
    limit, now, first = watch.config.health.entropy_low, watch.recent("policy/entropy"), watch.start("policy/entropy")
    if now is None or first is None or not now < limit * first:
        return None
    return now, limit * first, (
        f"entropy fell to {now:.2g} nats a token (mean of {WINDOW} steps), under {limit:.0%} of the run's first steps ({first:.2g}): "
        "the policy writes the same answer every time, so groups turn flat and learning ends. Try a lower optimizer.lr, "
        "grpo.variant=dapo (it clips rises less), or fewer updates a batch (grpo.minibatches, grpo.epochs)"
    )  # fmt: skip


def entropy_high(watch: Watch) -> Held:
    """The policy dissolves into gibberish."""
    limit, now, first = watch.config.health.entropy_high, watch.recent("policy/entropy"), watch.start("policy/entropy")
    if not limit or now is None or first is None or not now > limit * first:
        return None
    return now, limit * first, (
        f"entropy rose to {now:.2g} nats a token (mean of {WINDOW} steps), over {limit:g} times that of the run's first steps "
        f"({first:.2g}): the policy turns to gibberish. Likely the learning rate is too high, or a batch is used too often. "
        "Try a lower optimizer.lr, grpo.epochs=1, a smaller grpo.clip_high, or grpo.kl_coef=0.001"
    )  # fmt: skip


def reward_fall(watch: Watch) -> Held:
    """The reward has fallen from its best. Coins (reward.control) have nothing to fall from."""
    limit, now = watch.config.health.max_reward_fall, watch.recent("reward/mean")
    best, spread, at = watch.best
    values = watch.window("reward/mean")
    if not limit or now is None or best <= 0 or watch.config.reward.control == "random":
        return None
    noise = math.sqrt((spread + variance(values)) / len(values))
    if not (best - now > limit * best and best - now > SIGMA * noise):
        return None
    return now, best * (1 - limit), (
        f"mean reward fell to {now:.3g} (mean of {WINDOW} steps) from its best, {best:.3g} at step {at}: {(best - now) / best:.0%} lost, "
        f"the limit is {limit:.0%}. The policy collapses. Likely the learning rate is too high, or a batch is used too often. "
        "Go back to a checkpoint from before and try a lower optimizer.lr, grpo.epochs=1, or grpo.kl_coef=0.001"
    )  # fmt: skip


def no_reward(watch: Watch) -> Held:
    """No right answer at all: no group has a gradient. A run that never had one says so too."""
    values = watch.window("groups/all_wrong_frac")
    if not watch.config.health.max_reward_fall or not values or min(values) < 1:
        return None
    first = watch.start("reward/correct") or 0.0
    own = watch.config.reward.name
    never = (
        "nothing can be learned. Likely the problems are too hard for the model, prompt.template is not the model's own, or "
        "sampling.max_new_tokens cuts answers off: read rollouts/"
    )
    if is_own_reward(own):
        never = (
            f"nothing can be learned. The reward is your own, {own}: see first that it pays for an answer that you know to be right, by "
            f"`{typed('verify', 'GOLD', 'ANSWER', '--reward', own)}`, then read rollouts/"
        )
    cause = (
        f"at the start {first:.0%} were: the policy has collapsed. Go back to a checkpoint from before, with a lower optimizer.lr"
        if first
        else never
    )
    return 0.0, 0.0, f"no answer of the last {WINDOW} steps was right; {cause}"


def truncated(watch: Watch) -> Held:
    """Completions run into the length limit."""
    limit, now = watch.config.health.max_truncated, watch.recent("length/truncated_frac")
    if not limit or now is None or not now > limit:
        return None
    tokens = watch.config.sampling.max_new_tokens
    advice = (
        "Raise sampling.max_new_tokens; if only wrong answers grow (length/wrong), they are loops: try a lower optimizer.lr, "
        "or grpo.aggregation=token"
    )
    first, reward = watch.rows[0], watch.recent("reward/mean")
    cut, paid = number(first.get("length/truncated_frac")), number(first.get("reward/mean"))
    if cut is not None and paid and reward is not None and cut < limit / 2 and reward < paid / 2:
        advice = (
            f"At the first step it was {cut:.0%}, and reward has fallen from {paid:.2g} to {reward:.2g} since: these are loops, no longer "
            "thoughts. Start again with a lower optimizer.lr"
        )
    return now, limit, (
        f"{now:.0%} of completions (mean of {WINDOW} steps) were cut off at {tokens} tokens and score 0; the limit is {limit:.0%}. {advice}"
    )  # fmt: skip


def mismatch(watch: Watch) -> Held:
    """Sampler and trainer are no longer the same model."""
    limit, now = watch.config.health.max_mismatch_kl, watch.recent("policy/mismatch_kl")
    if not limit or now is None or not now > limit:
        return None
    return now, limit, (
        f"sampler and trainer are {now:.2g} nats a token apart (mean of {WINDOW} steps), the limit is {limit:g}: the gradient belongs to "
        "other samples than those that were drawn. With several updates a batch, take fewer (grpo.minibatches, grpo.epochs) or a lower "
        "optimizer.lr; with one, try compute.dtype=float32, and report it"
    )  # fmt: skip


def grad_spikes(watch: Watch) -> Held:
    """Gradient norms jump again and again."""
    limit = watch.config.health.grad_spike
    past = numbers(watch.rows[-PAST - WINDOW : -WINDOW], "policy/grad_norm")
    if not limit or len(past) < WINDOW:
        return None
    usual = median(past)
    spikes = [value for value in watch.window("policy/grad_norm") if value > limit * usual > 0]
    if len(spikes) < SPIKES:
        return None
    return max(spikes), limit * usual, (
        f"the gradient's norm was over {limit:g} times its median ({usual:.2g}) in {len(spikes)} of the last {WINDOW} steps, {max(spikes):.2g} "
        "at most: single samples push the policy around. Try a lower optimizer.grad_clip or optimizer.lr, or more grpo.groups; read those "
        "steps' rollouts/"
    )  # fmt: skip


def not_finite(watch: Watch) -> Held:
    """A step's update was skipped."""
    limit = watch.config.health.max_skipped
    if not watch.skipped:
        return None
    return watch.skipped, limit, (
        f"the loss or its gradient was not finite, so the update was skipped and the weights are those of the step before; {limit} such "
        "steps in a row end the run"
    )  # fmt: skip


def skipped(watch: Watch) -> Held:
    """Too many skipped updates in a row: the run makes no progress any more."""
    limit = watch.config.health.max_skipped
    if watch.skipped < limit:
        return None
    return watch.skipped, limit, (
        f"the loss or its gradient was not finite in {watch.skipped} steps in a row (health.max_skipped is {limit}). Likely the weights have "
        "grown too large for compute.dtype, or the model folder is damaged. Go back to an earlier checkpoint, with a lower optimizer.lr"
    )  # fmt: skip


# kind of an alarm -> its watcher. Kinds stand in health.jsonl and docs/metrics.md.
WATCHERS: dict[str, Callable[[Watch], Held]] = {
    "early_collapse": early_collapse,
    "entropy_low": entropy_low,
    "entropy_high": entropy_high,
    "reward_fall": reward_fall,
    "no_reward": no_reward,
    "truncated": truncated,
    "mismatch_kl": mismatch,
    "grad_spike": grad_spikes,
    "not_finite": not_finite,
    "skipped": skipped,
}


def watch_rows(config: Config, rows: Sequence[Row], rollbacks: Container[int] = ()) -> tuple[Watch, list[Alarm]]:
    """A watch that has seen `rows`, and every alarm on the way. `rollbacks` are the steps after which weights were given up."""
    watch, alarms = Watch(config), []
    for row in rows:
        alarms += watch.add(row)
        if row["step"] in rollbacks:
            watch.rolled_back()
    return watch, alarms
