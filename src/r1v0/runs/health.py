"""Signs of collapse, seen in the rows of metrics.jsonl alone.

Decides: a watcher reads logged rows and nothing else, so a resumed run finds what the uninterrupted one found, and
`r1v0 doctor` finds in an old run what the run would have said. A figure is a mean over WINDOW steps, because one step
is noise; it is held against the run's own past wherever there is one, because what is healthy differs from model to
model by tenfold. An alarm is raised where its condition begins, and once more only after it was gone for a window.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from statistics import variance

from r1v0.base.means import mean
from r1v0.base.stats import number, numbers
from r1v0.config import Config
from r1v0.runs.history import WINDOW, History, Row
from r1v0.runs.watchers import WATCHERS


@dataclass(frozen=True, slots=True)
class Alarm:
    """One sign of collapse. `value` is the figure, `limit` what it was held against, `message` one line for people.
    `fatal`: the run cannot go on as it is, whatever health.action says."""

    step: int
    kind: str
    value: float
    limit: float
    message: str
    fatal: bool = False


class Watch(History):
    """All watchers over one run. `add` each row of metrics.jsonl in its order, those of a resumed run's past too."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.last: dict[str, int] = {}  # kind -> number of rows when its condition last held

    def add(self, row: Row) -> list[Alarm]:
        """The alarms that begin with this step, most of the time none."""
        self.rows.append(row)
        self.skipped = self.skipped + 1 if number(row.get("policy/skipped")) else 0
        self._remember_best()
        found = []
        for kind, watcher in WATCHERS.items():
            held = watcher(self)
            if held is None or kind in self.config.health.ignore:
                continue
            value, limit, message = held
            fatal = kind == "skipped"
            if fatal or len(self.rows) - self.last.get(kind, -WINDOW) > WINDOW:
                found.append(Alarm(int(row["step"]), kind, value, limit, message, fatal))
            self.last[kind] = len(self.rows)
        return found

    def rolled_back(self) -> None:
        """The weights of the rows so far were given up: what happened lately no longer counts, start and best do."""
        self.since, self.last, self.skipped = len(self.rows), {}, 0

    def _remember_best(self) -> None:
        """The best mean reward of a whole window that ended before the present one began."""
        values = numbers(self.rows[-2 * WINDOW : -WINDOW], "reward/mean")
        if len(values) == WINDOW and mean(values) > self.best[0]:
            self.best = mean(values), variance(values), int(self.rows[-WINDOW - 1]["step"])


def watch_rows(config: Config, rows: Sequence[Row], rollbacks: Container[int] = ()) -> tuple[Watch, list[Alarm]]:
    """A watch that has seen `rows`, and every alarm on the way. `rollbacks` are the steps after which weights were
    given up."""
    watch, alarms = Watch(config), []
    for row in rows:
        alarms += watch.add(row)
        if row["step"] in rollbacks:
            watch.rolled_back()
    return watch, alarms
