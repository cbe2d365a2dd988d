"""The signs of collapse, a function each: does it hold now, by which figure, and what is to be done?"""

import math
from collections.abc import Callable
from statistics import median, variance

from r1v0.base.command import typed
from r1v0.base.stats import number, numbers
from r1v0.config import is_own_reward
from r1v0.runs.history import EARLY_ENTROPY, EARLY_GROUPS, EARLY_LENGTH, PAST, SIGMA, SPIKES, START, WINDOW, History

Held = tuple[float, float, str] | None  # (value, limit, message) of a condition that holds

ENTROPY_LOW, ENTROPY_HIGH = 0.1, 4.0
"""of the entropy of the run's first steps"""
REWARD_FALL = 0.2
"""share of its best that the mean reward has lost"""
TRUNCATED = 0.5
"""share of completions that are cut off"""
MISMATCH_KL = 0.05
"""nats per token between the sampler's distribution and the trainer's"""
GRAD_SPIKE = 10.0
"""times the median of the gradient norms"""


def early_collapse(watch: History) -> Held:
    """The first updates wreck the policy, before there are windows to compare. Absolute marks: in healthy runs
    entropy stayed over .6 of the first step's and length under 2.5 times, 13 steps long (results/)."""
    if not 2 <= len(watch.rows) <= WINDOW + START or watch.since:
        return None
    first, now = watch.rows[0], watch.rows[-1]
    after = f"after {len(watch.rows) - 1} step{'s' * (len(watch.rows) > 2)}"
    lr = watch.config.optimizer.lr
    cause = (
        f"the first updates wreck the policy, so optimizer.lr ({lr:g}) is too high for it. Start again with a "
        "quarter of that "
        "or less, and with optimizer.warmup_steps=10"
    )
    was, entropy = number(first.get("policy/entropy")), number(now.get("policy/entropy"))
    if was and entropy is not None and entropy < EARLY_ENTROPY * was:
        return (
            entropy,
            EARLY_ENTROPY * was,
            f"entropy fell from {was:.2g} to {entropy:.2g} nats per token {after}: {cause}",
        )
    short, length = number(first.get("length/mean")), number(now.get("length/mean"))
    if short and length is not None and length > EARLY_LENGTH * short:
        return length, EARLY_LENGTH * short, f"answers grew from {short:.0f} to {length:.0f} tokens {after}: {cause}"
    groups, wrong = number(now.get("groups/sampled")), number(first.get("groups/all_wrong_frac"))
    if groups is not None and wrong is not None:
        expected = groups * (1 - wrong)
        if expected >= EARLY_GROUPS and number(now.get("groups/all_wrong_frac")) == 1:
            return (
                0.0,
                expected,
                f"no answer is right {after}, in {expected:.0f} of {groups:.0f} groups one was to be expected: {cause}",
            )
    return None


def entropy_low(watch: History) -> Held:
    """The policy narrows to one answer."""
    limit, now, first = ENTROPY_LOW, watch.recent("policy/entropy"), watch.start("policy/entropy")
    if now is None or first is None or not now < limit * first:
        return None
    return (
        now,
        limit * first,
        (
            f"entropy fell to {now:.2g} nats per token (mean of {WINDOW} steps), under {limit:.0%} of the run's "
            f"first steps ({first:.2g}): "
            "the policy writes the same answer every time, so groups turn flat and learning ends. Try a lower "
            "optimizer.lr, "
            "grpo.variant=dapo (it clips rises less), or fewer updates per batch (grpo.minibatches, grpo.epochs)"
        ),
    )


def entropy_high(watch: History) -> Held:
    """The policy dissolves into gibberish."""
    limit, now, first = ENTROPY_HIGH, watch.recent("policy/entropy"), watch.start("policy/entropy")
    if now is None or first is None or not now > limit * first:
        return None
    return (
        now,
        limit * first,
        (
            f"entropy rose to {now:.2g} nats per token (mean of {WINDOW} steps), over {limit:g} times that of the "
            "run's first steps "
            f"({first:.2g}): the policy turns to gibberish. Likely the learning rate is too high, or a batch is "
            "used too often. "
            "Try a lower optimizer.lr, grpo.epochs=1, a smaller grpo.clip_high, or grpo.kl_coef=0.001"
        ),
    )


def reward_fall(watch: History) -> Held:
    """The reward has fallen from its best. Coins (reward.control) have nothing to fall from."""
    limit, now = REWARD_FALL, watch.recent("reward/mean")
    best, spread, at = watch.best
    values = watch.window("reward/mean")
    if now is None or best <= 0 or watch.config.reward.control == "random":
        return None
    noise = math.sqrt((spread + variance(values)) / len(values))
    if not (best - now > limit * best and best - now > SIGMA * noise):
        return None
    return (
        now,
        best * (1 - limit),
        (
            f"mean reward fell to {now:.3g} (mean of {WINDOW} steps) from its best, {best:.3g} at step {at}: "
            f"{(best - now) / best:.0%} lost, "
            f"the limit is {limit:.0%}. The policy collapses. Likely the learning rate is too high, or a batch is "
            "used too often. "
            "Go back to a checkpoint from before and try a lower optimizer.lr, grpo.epochs=1, or grpo.kl_coef=0.001"
        ),
    )


def no_reward(watch: History) -> Held:
    """No right answer at all: no group has a gradient. A run that never had one says so too."""
    values = watch.window("groups/all_wrong_frac")
    if not values or min(values) < 1:
        return None
    first = watch.start("reward/correct") or 0.0
    own = watch.config.reward.name
    never = (
        "nothing can be learned. Likely the problems are too hard for the model, prompt.template is not the "
        "model's own, or "
        "sampling.max_new_tokens cuts answers off: read rollouts/"
    )
    if is_own_reward(own):
        never = (
            f"nothing can be learned. The reward is your own, {own}: see first that it pays for an answer "
            "that you know to be right, by "
            f"`{typed('verify', 'GOLD', 'ANSWER', '--reward', own)}`, then read rollouts/"
        )
    cause = (
        f"at the start {first:.0%} were: the policy has collapsed. Go back to a checkpoint from before, with "
        "a lower optimizer.lr"
        if first
        else never
    )
    return 0.0, 0.0, f"no answer of the last {WINDOW} steps was right; {cause}"


def truncated(watch: History) -> Held:
    """Completions run into the length limit."""
    limit, now = TRUNCATED, watch.recent("length/truncated_frac")
    if now is None or not now > limit:
        return None
    tokens = watch.config.sampling.max_new_tokens
    advice = (
        "Raise sampling.max_new_tokens; if only wrong answers grow (length/wrong), they are loops: try a "
        "lower optimizer.lr, "
        "or grpo.aggregation=token"
    )
    first, reward = watch.rows[0], watch.recent("reward/mean")
    cut, paid = number(first.get("length/truncated_frac")), number(first.get("reward/mean"))
    if cut is not None and paid and reward is not None and cut < limit / 2 and reward < paid / 2:
        advice = (
            f"At the first step it was {cut:.0%}, and reward has fallen from {paid:.2g} to {reward:.2g} "
            "since: these are loops, no longer "
            "thoughts. Start again with a lower optimizer.lr"
        )
    return (
        now,
        limit,
        (
            f"{now:.0%} of completions (mean of {WINDOW} steps) were cut off at {tokens} tokens and score 0; the "
            f"limit is {limit:.0%}. {advice}"
        ),
    )


def mismatch(watch: History) -> Held:
    """Sampler and trainer are no longer the same model."""
    limit, now = MISMATCH_KL, watch.recent("policy/mismatch_kl")
    if now is None or not now > limit:
        return None
    return (
        now,
        limit,
        (
            f"sampler and trainer are {now:.2g} nats per token apart (mean of {WINDOW} steps), the limit is "
            f"{limit:g}: the gradient belongs to "
            "other samples than those that were drawn. With several updates per batch, take fewer "
            "(grpo.minibatches, grpo.epochs) or a lower "
            "optimizer.lr; with one, try compute.dtype=float32, and report it"
        ),
    )


def grad_spikes(watch: History) -> Held:
    """Gradient norms jump again and again."""
    limit = GRAD_SPIKE
    past = numbers(watch.rows[-PAST - WINDOW : -WINDOW], "policy/grad_norm")
    if len(past) < WINDOW:
        return None
    usual = median(past)
    spikes = [value for value in watch.window("policy/grad_norm") if value > limit * usual > 0]
    if len(spikes) < SPIKES:
        return None
    return (
        max(spikes),
        limit * usual,
        (
            f"the gradient's norm was over {limit:g} times its median ({usual:.2g}) in {len(spikes)} of the last "
            f"{WINDOW} steps, {max(spikes):.2g} "
            "at most: single samples push the policy around. Try a lower optimizer.grad_clip or optimizer.lr, or "
            "more grpo.groups; read those "
            "steps' rollouts/"
        ),
    )


def not_finite(watch: History) -> Held:
    """A step's update was skipped."""
    limit = watch.config.health.max_skipped
    if not watch.skipped:
        return None
    return (
        watch.skipped,
        limit,
        (
            "the loss or its gradient was not finite, so the update was skipped and the weights are those of the "
            f"step before; {limit} such "
            "steps in a row end the run"
        ),
    )


def skipped(watch: History) -> Held:
    """Too many skipped updates in a row: the run makes no progress any more."""
    limit = watch.config.health.max_skipped
    if watch.skipped < limit:
        return None
    return (
        watch.skipped,
        limit,
        (
            f"the loss or its gradient was not finite in {watch.skipped} steps in a row (health.max_skipped is "
            f"{limit}). Likely the weights have "
            "grown too large for compute.dtype, or the model folder is damaged. Go back to an earlier "
            "checkpoint, with a lower optimizer.lr"
        ),
    )


# kind of an alarm -> its watcher. Kinds stand in health.jsonl and docs/metrics.md.
WATCHERS: dict[str, Callable[[History], Held]] = {
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
