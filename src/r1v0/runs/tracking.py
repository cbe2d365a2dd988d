"""A run's rows on their way to trackers, while it trains and afterwards.

Decides: metrics.jsonl stays the truth, and a tracker is one more reader of its rows. All of a step, its evaluation
included, is one entry, so a step that an evaluation follows waits for it. Each tracker has a thread and a bounded queue:
a tracker that fails or falls behind is turned off with one line, and the run neither stops nor waits. What it
missed, `r1v0 export` or the next --resume sends.
"""

import dataclasses
import math
import queue
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1v0 import config as configs
from r1v0.base.command import typed
from r1v0.base.errors import UserError, reason
from r1v0.base.lock import hold
from r1v0.runs import records, runlog
from r1v0.runs.progress import Progress
from r1v0.runs.trackers import COLUMNS, Tables, need_packages, open_tracker, run_id
from r1v0.runs.written import answers_at

if TYPE_CHECKING:
    from r1v0.config import Config

SHOWN = 16
"""completions of an evaluation in a tracker's table, for each dataset"""
BEHIND = 1000
"""steps that a tracker may be behind"""
PATIENCE = 30.0
"""seconds that the end of a run waits for a tracker"""
Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """All of one step: its numbers by name, and whether it was evaluated."""

    step: int
    values: dict[str, float]
    evaluated: bool


def entry_of(step: int, metrics: Row | None, evals: Sequence[Row]) -> Entry:
    """A step's row of metrics.jsonl, if there is one, and its rows of evals.jsonl as eval/DATASET/... ."""
    values = numbers_in(metrics or {})
    for row in evals:
        values |= numbers_in(row, f"eval/{row.get('dataset')}/")
    return Entry(step, values, bool(evals))


def numbers_in(row: Row, prefix: str = "") -> dict[str, float]:
    """The finite numbers of a row by their names, those of a table in it as NAME/KEY; its step is left out."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            found |= numbers_in(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and key != "step":
            found[prefix + key] = value
    return found


def entries_in(folder: Path, config: "Config | None") -> tuple[list[Entry], Row | None]:
    """What a run folder holds, a step each, in order; and the row of the last step, if its evaluation is still to come
    (without a config: none is). Raises UserError for a damaged file."""
    metrics = {row["step"]: row for row in records.read_metrics(folder)}
    evals: dict[int, list[Row]] = {}
    for row in records.read_evals(folder):
        evals.setdefault(row["step"], []).append(row)
    steps = sorted(metrics.keys() | evals.keys())
    waits = config is not None and bool(steps) and steps[-1] not in evals and config.evaluates_after(steps[-1])
    held = metrics[steps.pop()] if waits else None
    return [entry_of(step, metrics.get(step), evals.get(step, [])) for step in steps], held


def completions(folder: Path, step: int) -> Tables:
    """The first answers of an evaluation, by eval/DATASET/completions: the same problems every time. Empty where
    no answers are kept. Raises UserError for a damaged file."""
    found: dict[str, list[dict[str, Any]]] = {}
    for answer in answers_at(folder, step):
        rows = found.setdefault(f"eval/{answer.dataset}/completions", [])
        if answer.sample == 0 and len(rows) < SHOWN:
            rows.append({name: getattr(answer, name) for name in COLUMNS})
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class Exported:
    """What `export` did: steps sent now, steps that were there before, the step that waits for its evaluation (None:
    none does), and how to look at it."""

    sent: int
    there: int
    waits: int | None
    where: str


def export(folder: Path, name: str) -> Exported:
    """Send a run that is on disk to a tracker: the steps that it does not hold yet. Raises UserError."""
    need_packages([name])
    runlog.need_run(folder)
    if runlog.is_evaluation(folder):
        raise UserError(f"{folder} is an evaluation: give a run folder that `{typed('train')}` wrote")
    text, where, config = records.config_text(folder), str(folder / runlog.CONFIG), None
    settings = configs.read_text(text, where)
    with suppress(UserError):  # an older release's has settings that are gone; no run goes on with them
        config = configs.parse(text, where)
    with hold(folder):  # a run that trains now sends its rows itself
        entries, held = entries_in(folder, config)
        tables = [completions(folder, entry.step) if entry.evaluated else {} for entry in entries]
        try:
            tracker = open_tracker(name, folder, run_id(folder), settings)
            new = [(entry, table) for entry, table in zip(entries, tables, strict=True) if entry.step > tracker.last]
            for entry, table in new:
                tracker.send(entry.step, entry.values, table)
            tracker.close()
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{name} took not all of {folder} ({reason(error)}): do it again to send the rest"
            ) from None
    return Exported(len(new), len(entries) - len(new), held["step"] if held else None, tracker.where)


class Feed:
    """One tracker of a run: a thread that opens it and sends what it does not hold yet. `said` is for the display, which
    only the run's own thread may touch."""

    def __init__(self, name: str, folder: Path, identity: str, config: "Config", before: Sequence[Entry]) -> None:
        self.name, self.folder, self.identity, self.config, self.before = name, folder, identity, config, before
        self.queue: queue.Queue[Entry | None] = queue.Queue(BEHIND)
        self.off = False
        self.said: deque[str] = deque()
        self.thread = threading.Thread(target=self._work, name=f"r1v0 {name}", daemon=True)
        self.thread.start()

    def put(self, entry: Entry | None) -> None:
        """Send a step, or None: there are no more. Never waits."""
        if not self.off:
            try:
                self.queue.put_nowait(entry)
            except queue.Full:
                self.give_up(f"it is {BEHIND} steps behind")

    def end(self) -> None:
        """Wait until everything before a `put(None)` is sent, PATIENCE at most."""
        if not self.off:
            self.thread.join(PATIENCE)
            if self.thread.is_alive():
                self.give_up(f"it takes more than {PATIENCE:.0f} seconds to end")

    def give_up(self, why: str) -> None:
        """Send nothing more."""
        if not self.off:
            self.off = True
            again = typed("export", self.folder, "--to", self.name)
            self.said.append(
                f"warning: {self.name} gets no more rows of this run ({why}); afterwards send them by: {again}"
            )

    def _work(self) -> None:
        try:
            tracker = open_tracker(self.name, self.folder, self.identity, dataclasses.asdict(self.config))
            self.said.append(tracker.where)
            waiting = deque[Entry | None](self.before)
            while (entry := waiting.popleft() if waiting else self.queue.get()) is not None and not self.off:
                if entry.step > tracker.last:
                    tables = completions(self.folder, entry.step) if entry.evaluated else {}
                    tracker.send(entry.step, entry.values, tables)
                    tracker.last = entry.step
            tracker.close()
        except (Exception, SystemExit) as error:
            self.give_up(reason(error))


class Tracked(Progress):
    """Passes everything on to a display, and a training run's rows to the trackers of `track`."""

    def __init__(self, display: Progress) -> None:
        self.display = display
        self.feeds: list[Feed] = []
        self.held: Row | None = None  # the row of a step whose evaluation is to come
        self.config: Config | None = None

    def start(self, config: "Config", total_steps: int, out: Path) -> None:
        self.display.start(config, total_steps, out)
        if not config.track:
            return
        try:
            before, self.held = entries_in(out, config)
            identity = run_id(out)
        except Exception as error:
            self.display.note(f"warning: nothing is sent to {' or '.join(config.track)}: {reason(error)}")
            return
        self.config = config
        self.feeds = [Feed(name, out, identity, config, before) for name in config.track]

    def phase(self, name: str, done: int, total: int, **fields: float | str) -> None:
        self.display.phase(name, done, total, **fields)
        self._tell()

    def step(self, metrics: Row) -> None:
        self.display.step(metrics)
        self._send_held()
        self.held = metrics
        if self.config is not None and not self.config.evaluates_after(metrics["step"]):
            self._send_held()
        self._tell()

    def evaluation(self, records: Sequence[Row]) -> None:
        self.display.evaluation(records)
        step = records[0]["step"] if records else None
        if self.feeds and step is not None:
            row = self.held if self.held is not None and self.held["step"] == step else None
            self.held = None
            self._send(entry_of(step, row, records))
        self._tell()

    def note(self, text: str) -> None:
        self.display.note(text)

    def finish(self, summary: Mapping[str, object]) -> None:
        self._end()
        self.display.finish(summary)

    def close(self) -> None:
        self._end()
        self.display.close()

    def _send_held(self) -> None:
        if self.feeds and self.held is not None:
            self._send(entry_of(self.held["step"], self.held, []))
        self.held = None

    def _send(self, entry: Entry) -> None:
        for feed in self.feeds:
            feed.put(entry)

    def _end(self) -> None:
        """A row that waits for its evaluation is not sent: the resumed run sends both."""
        feeds, self.feeds = self.feeds, []
        for feed in feeds:
            feed.put(None)
        for feed in feeds:
            feed.end()
            self._tell(feed)

    def _tell(self, *ended: Feed) -> None:
        for feed in (*self.feeds, *ended):
            while feed.said:
                self.display.note(feed.said.popleft())
