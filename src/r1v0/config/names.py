"""Tables about settings: bounds, those that are refused or have another name now, those that one needs first."""

# What a slip of the keyboard must not ask of a machine: each stands for memory, processes or time before the first
# step.
LARGEST = {
    "steps": 999_999_999,  # a step's name has nine digits at most (runlog.py)
    "threads": 1024,
    "sampling.max_new_tokens": 1 << 20,
    "eval.max_new_tokens": 1 << 20,
    "sampling.max_sequences": 1 << 16,
    "grpo.groups": 1 << 16,
    "grpo.group_size": 1 << 16,
    "grpo.max_refills": 1 << 16,
    "grpo.epochs": 1 << 16,
    "eval.samples": 1 << 16,
    "lora.rank": 1 << 14,
    "data.max_problems": 1 << 24,
    "reward.workers": 1024,
    "reward.memory_mb": 1 << 30,
    "reward.timeout_s": 86_400.0,
}

# Settings that other trainers have and that would make the logprobs of training wrong.
_TRUNCATED = (
    "the trainer's logprobs are those of the whole distribution, so truncated sampling makes them wrong; leave it out"
)
REFUSED = {f"sampling.{key}": _TRUNCATED for key in ("top_p", "top_k", "min_p")}

RENAMED = {
    "checkpoint_every": "checkpoints.every",
    "sampling.slots": "sampling.max_sequences",
    "optimizer.states": "optimizer.moments",
}
"""Names that settings had."""

TRACKERS = ("wandb", "trackio", "tensorboard")
"""What `track` may name."""

ALARMS = (
    "early_collapse",
    "entropy_low",
    "entropy_high",
    "reward_fall",
    "no_reward",
    "truncated",
    "mismatch_kl",
    "grad_spike",
)
"""What health.ignore may name (runs/watchers.py)."""

_LIMIT = "the limits of alarms are fixed: leave it out, or name the alarm in health.ignore"
GONE = {
    f"health.{name}": _LIMIT
    for name in ("entropy_low", "entropy_high", "max_reward_fall", "max_truncated", "max_mismatch_kl", "grad_spike")
}
"""Settings that there were, with what to do instead."""

FIRST = (
    "model",
    "data.name",
    "data.path",
    "prompt.template",
    "reward.name",
    "steps",
    "sampling.max_new_tokens",
    "grpo.groups",
    "grpo.group_size",
    "optimizer.lr",
)
"""The settings that one needs first."""
