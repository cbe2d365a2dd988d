"""The command line's verbs: each with its arguments, and what it prints of the job that it calls."""
