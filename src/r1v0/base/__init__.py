"""What everything stands on: errors, keys, reading, writing, locks, statistics. Imports nothing of r1v0 above it."""
