"""The loop of training, and what keeps it safe: checkpoints, resuming, recovery."""
