"""What a run shows: figures, and progress on the terminal. Neither imports torch; matplotlib and rich come late."""

from r1v0.report.figures import plot, plot_groups
from r1v0.report.progress import open_progress
from r1v0.report.series import parse_groups

__all__ = ["open_progress", "parse_groups", "plot", "plot_groups"]
