"""What cannot run, or would run and give wrong numbers, and what a resumed run may change."""

import json
from functools import partial
from typing import Any

from r1v0.base.errors import UserError, unknown
from r1v0.config.names import ALARMS, LARGEST, TRACKERS
from r1v0.config.schema import VARIANTS, Config
from r1v0.config.text import differences, value_of

# What a resumed run may change: how long, how often and where, but nothing that the steps so far depended on.
MAY_CHANGE = (
    "steps",
    "checkpoints.every",
    "checkpoints.keep_last",
    "checkpoints.keep_best",
    "threads",
    "eval.every",
    "optimizer.micro_batch_tokens",
    "optimizer.shard",
    "reward.workers",
    "sampling.max_sequences",
    "health.action",
    "health.max_skipped",
    "health.max_rollbacks",
    "health.ignore",
    "track",
)

# Where a thing is may change, under the same name: a run and its data are moved to another folder or machine.
MAY_MOVE = ("model", "data.name", "data.path", "data.avoid", "eval.on", "reward.name", "reward.extra")


def need_resumable(was: Config, now: Config, where: str = "") -> None:
    """Raise UserError unless a run that had the config `was` may go on with `now`, which `where` says."""
    wrong = [
        f"{key} was {json.dumps(before)} in this run and cannot become {json.dumps(after)}"
        for key, (before, after) in differences(was, now).items()
        if key not in MAY_CHANGE and not (key in MAY_MOVE and _names(before) == _names(after))
    ]
    if wrong:
        raise UserError(
            f"{'; '.join(wrong)}{where}: only {', '.join(MAY_CHANGE)} may change on --resume; start a new run "
            "for others"
        )


def _names(value: Any) -> Any:
    """The last part of each path in a setting's value."""
    if isinstance(value, dict):
        return {_names(key): entry for key, entry in value.items()}
    if isinstance(value, list):
        return list(map(_names, value))
    name, is_path, path = str(value).rpartition("=")
    return name + is_path + path.rpartition("/")[2]


def validate(config: Config) -> None:
    """Refuse what cannot run, or what would run and give wrong numbers. Raises UserError."""
    need = partial(_need, config)
    for key in ("grpo.groups", "sampling.max_new_tokens", "eval.every", "eval.samples", "grpo.minibatches",
                "grpo.epochs", "reward.workers", "checkpoints.every"):  # fmt: skip
        need(value_of(config, key) >= 1, key, "a whole number of at least 1")
    for key, most in LARGEST.items():
        need(value_of(config, key) <= most, key, f"at most {most}")
    for key in ("seed", "steps", "threads", "sampling.max_sequences", "grpo.max_refills", "grpo.kl_coef", "eval.max_problems",
                "eval.max_new_tokens", "data.max_problems", "optimizer.warmup_steps", "optimizer.weight_decay",
                "optimizer.micro_batch_tokens", "eval.temperature", "checkpoints.keep_last", "checkpoints.keep_best",
                "health.max_rollbacks"):  # fmt: skip
        need(value_of(config, key) >= 0, key, "0 or more")
    for key in ("sampling.temperature", "optimizer.lr", "optimizer.grad_clip", "reward.timeout_s", "reward.memory_mb"):
        need(value_of(config, key) > 0, key, "more than 0")
    if config.health.action == "rollback":
        need(
            len(config.eval.on) > 0,
            "eval.on",
            "a dataset: health.action=rollback goes back to the best evaluated checkpoint",
        )
        kept = config.checkpoints.keep_last == 0 or config.checkpoints.keep_best > 0
        need(kept, "checkpoints.keep_best", "at least 1: health.action=rollback goes back to the best checkpoint")
    for name in config.health.ignore:
        if name not in ALARMS:
            raise unknown("health.ignore", name, ALARMS)
    need(config.health.max_skipped >= 1, "health.max_skipped", "a whole number of at least 1")
    need(0 < config.health.rollback_lr < 1, "health.rollback_lr", "more than 0, below 1")
    for key in ("optimizer.beta1", "optimizer.beta2"):
        need(0 <= value_of(config, key) < 1, key, "at least 0 and below 1")
    need(config.lora.rank >= 0, "lora.rank", "0 (train the whole model) or more")
    need(config.lora.alpha > 0, "lora.alpha", "more than 0")
    _validate_optimizer(config)
    for name in config.track:
        if name not in TRACKERS:
            raise unknown("tracker in track", name, TRACKERS)
    need(len(set(config.track)) == len(config.track), "track", "each tracker once")
    names = [spec.partition("=")[0].strip() for spec in config.eval.on]
    need(len(set(names)) == len(names), "eval.on", "each dataset once")
    need(config.grpo.group_size >= 2, "grpo.group_size", "at least 2: a group of one has no advantage")
    need(
        0 <= config.grpo.keep_per_group <= config.grpo.group_size,
        "grpo.keep_per_group",
        "0 (all) up to grpo.group_size",
    )
    need(0 < config.grpo.clip_low <= 1, "grpo.clip_low", "more than 0, at most 1")
    need(config.grpo.clip_high > 0, "grpo.clip_high", "more than 0")
    if config.grpo.variant not in VARIANTS:
        raise unknown("grpo.variant", config.grpo.variant, VARIANTS)
    need(
        config.grpo.minibatches <= config.grpo.groups * config.grpo.group_size,
        "grpo.minibatches",
        "at most groups x group_size",
    )


def _validate_optimizer(config: Config) -> None:
    """Which ways to save memory go together."""
    need = partial(_need, config)
    eight_bit, lora = config.optimizer.moments == "8bit", config.lora.rank > 0
    need(not (eight_bit and lora), "optimizer.moments", "float32 where lora.rank is set: adapters are small")
    need(
        not (eight_bit and config.optimizer.offload),
        "optimizer.moments",
        "float32 where optimizer.offload is set: offloaded, they take no GPU memory at all",
    )
    if config.optimizer.shard:
        need(not lora, "optimizer.shard", "false where lora.rank is set: adapters are small")
        need(not eight_bit, "optimizer.shard", "false where optimizer.moments is 8bit: those are not divided")
        need(not config.optimizer.offload, "optimizer.shard", "false where optimizer.offload is set: use one of them")


def _need(config: Config, ok: bool, key: str, expected: str) -> None:
    if not ok:
        raise UserError(f"{key} is {json.dumps(value_of(config, key))}: expected {expected}")
