"""What a run leaves on the disk, and what can be read from it: no torch."""
