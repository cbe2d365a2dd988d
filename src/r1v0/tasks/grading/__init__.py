"""Grading that cannot stop a run: processes with a deadline and a memory limit, and rewards of the user's own."""
