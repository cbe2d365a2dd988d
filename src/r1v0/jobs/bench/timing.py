"""Clocks: interleaved rounds, medians, and the peak of a process's memory.

Decides: a machine's speed drifts by tens of percent while one measures, so contenders take turns in one process, round
by round, and only ratios of medians within such a run are claimed.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from r1v0.models.device import peak_rss

# What a contender does: the tokens it made; with a clock's reading where not all of its time is to be counted.
Run = Callable[[], int | tuple[int, dict[str, float]]]


def interleaved(contenders: Mapping[str, Run], rounds: int, **about: Any) -> Iterator[dict[str, Any]]:
    """Run each contender once a round; a row {contender, round, seconds, cpu_s, tokens, **about} after each run."""
    for number in range(rounds):
        for name, run in contenders.items():
            clock = Clock()
            done = run()
            tokens, reading = done if isinstance(done, tuple) else (done, clock.read())
            yield {**about, "contender": name, "round": number, **reading, "tokens": tokens}


class Clock:
    """Seconds since it was made. `cpu_s`, of all threads of the process, tells a busy machine from a slow engine."""

    def __init__(self) -> None:
        self.start = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self.start[0], "cpu_s": time.process_time() - self.start[1]}


def current_rss() -> int:
    """Memory this process holds now, in bytes; the peak where the system does not say."""
    import resource  # not on Windows

    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return peak_rss()
    return pages * resource.getpagesize()
