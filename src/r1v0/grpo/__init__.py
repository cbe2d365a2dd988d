"""The algorithm: advantages, batches, losses, logprobs, the optimizer."""
