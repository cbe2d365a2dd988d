"""Tokens from a policy: the loop of continuous batching, its cache, and how a token is drawn. Knows no text."""
