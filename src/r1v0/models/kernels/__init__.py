"""Faster operations than PyTorch's own, each tried against it before it is used (models/tried.py)."""
