"""The names of the panels that `plot --panels` takes: apart, because `--help` says them and draws nothing."""

NAMES = (
    "accuracy", "hard-accuracy", "length", "reward",
    "length-by-verdict", "cut-off",
    "entropy", "mismatch-kl", "grad-norm", "flat-groups", "clipped", "kl",
    "reflection", "hard-reflection",
)  # fmt: skip
