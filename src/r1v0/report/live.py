"""The live display: the step, the curves so far as sparklines, and how healthy and fast the run is.

Decides: the trainer only leaves values behind; a thread of rich draws them, twice a second at most, so a run pays
well under one per cent of a core for being watched. Colours come from the terminal's own palette, and NO_COLOR is
honoured.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.live import Live as RichLive
from rich.text import Text

from r1v0.base.stats import number, numbers
from r1v0.report.status import (
    Row,
    Status,
    accuracy,
    amount,
    clock,
    closing_lines,
    other_reading,
    phase_pieces,
    phase_text,
    rates,
    sparkline,
)
from r1v0.report.texts import closing_texts
from r1v0.runs.progress import Progress

if TYPE_CHECKING:
    from r1v0.config import Config

REFRESHES_PER_SECOND = 2
MOST_DATASETS = 6
LABEL, VALUE = 16, 18
"""columns of a row before its sparkline"""


class Live(Progress):
    """Draws a `Status` in place until it is closed."""

    def __init__(self, stream: TextIO) -> None:
        self.console = Console(file=stream, highlight=False)
        self.status = Status()
        self.live: RichLive | None = None

    def start(self, config: "Config", total_steps: int, out: Path) -> None:
        self.status.start(config, total_steps, out)
        self._show()

    def phase(self, name: str, done: int, total: int, **fields: float | str) -> None:
        before = self.status.phase
        new = self.status.set_phase(name, done, total, fields)
        if new and before is not None and self.status.started is None:
            self._print(phase_text(before))
        if self.live is None:
            self._show()

    def step(self, metrics: Row) -> None:
        self.status.add_step(metrics)

    def evaluation(self, records: Sequence[Row]) -> None:
        self.status.evals += records
        self.status.phase = None
        if self.status.started is None:
            for row in records:
                length = amount(number(row.get("length")))
                self._print(f"{row.get('dataset')}  accuracy {accuracy(row)}{other_reading(row)}  length {length}")

    def note(self, text: str) -> None:
        self._print(text)

    def finish(self, summary: Mapping[str, object]) -> None:
        self.close()
        for line in closing_lines(self.status, summary, "→", closing_texts(self.status), self.console.width):
            self._print(line)

    def close(self) -> None:
        if self.live is not None:
            live, self.live = self.live, None
            self.status.end()
            live.stop()

    def _show(self) -> None:
        self.live = RichLive(get_renderable=self._render, console=self.console, refresh_per_second=REFRESHES_PER_SECOND)
        self.live.start()

    def _print(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def _render(self) -> Group | Text:
        try:
            lines = render(self.status, self.console.width)
        except Exception:  # drawn by a thread of its own, where nobody would catch it
            return Text("")
        return Group(*lines)


def render(status: Status, width: int) -> list[Text]:
    """The display of a status, at most `width` columns wide."""
    lines = _training(status, width) if status.started is not None else []
    if status.phase is not None:
        if status.started is None and status.phase.total:
            lines.append(_bar("", status.phase.done, status.phase.total, "", width))
        lines += [Text(part, style="dim") for part in _fold(phase_pieces(status.phase), width)]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines


def _training(status: Status, width: int) -> list[Text]:
    config = status.config
    head = Text.assemble(
        ("r1v0 ", "bold"), f"{config.model} on {config.data.name}" if config else "", (f" → {status.out}", "dim")
    )
    elapsed = clock(status.elapsed)
    times = (
        f"{elapsed} elapsed, {clock(status.seconds_left)} left" if status.step < status.total else f"{elapsed} elapsed"
    )
    lines = [head, _bar(f"step {status.step}/{status.total}", status.step, status.total, times, width)]
    if status.rows:
        lines += [
            Text(""),
            _row("training reward", amount(status.value("reward/mean")), status.curve("reward/mean"), "yellow", width),
            _row(
                "training length",
                f"{amount(status.value('length/mean'))} tokens",
                status.curve("length/mean"),
                "green",
                width,
            ),
        ]
    names = status.datasets()[:MOST_DATASETS]
    if names:
        last = status.evaluations(names[0])[-1]
        lines += [Text(""), Text(f"held out, after step {last.get('step')}", style="dim")]
    for i, name in enumerate(names):
        rows = status.evaluations(name)
        lines.append(_row(name, accuracy(rows[-1]), numbers(rows, "accuracy"), "blue" if i == 0 else "magenta", width))
        if i == 0:
            lengths = numbers(rows, "length")
            lines.append(
                _row("  length", f"{amount(lengths[-1] if lengths else None)} tokens", lengths, "green", width)
            )
    if status.rows:
        lines += [Text(""), *(Text(part, style="dim") for part in _fold(rates(status), width))]
    return lines


def _fold(pieces: Sequence[str], width: int) -> list[str]:
    """Pieces joined by dots, on as many lines as they need."""
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if len(lines[-1]) + 3 + len(piece) <= width:
            lines[-1] += f" · {piece}"
        else:
            lines.append(piece)
    return lines


def _row(label: str, value: str, curve: Sequence[float], style: str, width: int) -> Text:
    name = label if len(label) <= LABEL else label[: LABEL - 1] + "…"
    room = min(60, width - LABEL - VALUE - 2)
    line = Text.assemble(f"{name:<{LABEL}} ", (f"{value:<{VALUE}}", "bold"))
    if curve and room >= 6:
        line.append(sparkline(curve, room), style=style)
    return line


def _bar(before: str, done: int, total: int, after: str, width: int) -> Text:
    room = max(10, width - len(before) - len(after) - 2 * bool(before) - 2 * bool(after))
    full = min(room, round(room * done / total)) if total else 0
    line = Text(f"{before}  " if before else "", style="bold")
    line.append("━" * full, style="cyan")
    line.append("─" * (room - full), style="dim")
    return line.append(f"  {after}" if after else "", style="default")
