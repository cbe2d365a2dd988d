"""Countdown: problems, the corpus of the embedded base model, the reward."""
