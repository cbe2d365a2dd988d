"""Measurements: r1v0's own speed on this machine, beside that of the libraries that one would use instead."""
