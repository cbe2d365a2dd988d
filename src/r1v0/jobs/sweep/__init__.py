"""`r1v0 sweep`: a grid of settings and seeds, each cell a run of its own in a process of its own."""
