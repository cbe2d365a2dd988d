"""The reader on a terminal: one entry at a time, moved by keys.

Decides: `Reader` is what is shown and what a key does to it, without a terminal; `browse` draws it and hands it the
keys. Everything is drawn anew after a key and after a change of the terminal's size, which is looked at four times a
second.
"""

import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from r1v0.base.errors import UserError
from r1v0.base.interrupts import stoppable
from r1v0.base.shown import shown
from r1v0.jobs.read import shelf as shelves
from r1v0.jobs.read.keys import keyboard
from r1v0.jobs.read.shelf import Shelf
from r1v0.report.texts import Line, lines_of
from r1v0.runs import runlog
from r1v0.runs.written import Pair, TrainingRollout, Written, written_steps

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

LOOK_S = 0.25
"""seconds between two looks at the terminal's size, and at whether somebody wants to stop"""
HELP = (
    "n next", "p previous", "f filter", "/ search", "l longest", "s steps", "t training", "[ ] step",
    "up down space b scroll", "q quit",
)  # fmt: skip


@dataclass(kw_only=True)
class Reader:
    """What the screen shows. `found` are the entries that pass, `place` which of them is shown, `lines` its lines, of
    whose rows `scroll` is the first; `page` rows have room. `typing` is a search that is being typed; `message` says
    once why a key did nothing."""

    shelf: Shelf
    another: Callable[[bool, int | None], Shelf]
    filters: Sequence[str] = ()
    search: str = ""
    longest: bool = False
    steps: bool = False
    place: int = 0
    scroll: int = 0
    page: int = 1
    typing: str | None = None
    message: str = ""
    found: list[list[Pair]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.open(self.shelf)

    @property
    def training(self) -> bool:
        """Whether the shelf holds training rollouts."""
        return self.shelf.groups is not None

    def open(self, shelf: Shelf) -> None:
        """Show another shelf, with the same filters where it has them."""
        self.shelf, self.counts = shelf, shelf.counts()
        self.filters = [name for name in self.filters if name in self.counts]
        self.choose()

    def choose(self) -> None:
        """Find what passes, and stay with the problem that is shown if it is among it."""
        here = self.found[self.place] if self.found else []
        self.found = self.shelf.entries(self.filters, self.search, self.longest)
        keys = [_key(together) for together in self.found]
        self.go(keys.index(_key(here)) if here and _key(here) in keys else 0)

    def go(self, place: int) -> None:
        """Show the entry at `place`, or the nearest there is, from its top."""
        self.place, self.scroll = max(0, min(place, len(self.found) - 1)), 0
        if not self.found:
            self.lines = [Line("", "nothing passes here: f chooses another filter, / another search", "yellow")]
            return
        together, steps = self.found[self.place], list[tuple[str, Written]]()
        if self.steps and not self.training:
            try:
                steps = shelves.through_steps(self.shelf.folder, [together[0].after])[0]
            except UserError as error:
                self.steps, self.message = False, str(error)
        self.lines = lines_of(shelves.entry_of(self.shelf, together, steps))

    def press(self, key: str) -> bool:
        """Do what a key asks for; False to quit."""
        self.message = ""
        if self.typing is not None:
            self._type(key)
            return True
        try:
            return self._do(key)
        except UserError as error:
            self.message = str(error)
            return True

    def _do(self, key: str) -> bool:
        moves = {"up": -1, "k": -1, "down": 1, "j": 1, "enter": 1}
        moves |= {"page down": self.page, " ": self.page, "page up": -self.page, "b": -self.page}
        if key in moves:
            self.scroll = max(0, self.scroll + moves[key])  # `frame` keeps it above the end
        elif key in ("n", "right", "p", "left"):
            self.go(self.place + (1 if key in ("n", "right") else -1))
        elif key in ("home", "g", "end", "G"):
            self.go(0 if key in ("home", "g") else len(self.found) - 1)
        elif key in ("f", "F"):
            self._next_filter(1 if key == "f" else -1)
        elif key == "/":
            self.typing = ""
        elif key == "l":
            self.longest = not self.longest
            self.choose()
        elif key == "s":
            self._toggle_steps()
        elif key == "t":
            self._toggle_training()
        elif key in ("[", "]"):
            self._other_step(1 if key == "]" else -1)
        return key != "q"

    def _type(self, key: str) -> None:
        typed = self.typing or ""
        if key in ("enter", "escape"):
            self.search = typed if key == "enter" else self.search
            self.typing = None
            self.choose()
        elif key == "backspace":
            self.typing = typed[:-1]
        elif len(key) == 1:
            self.typing = typed + key

    def _next_filter(self, by: int) -> None:
        """The next filter that anything passes, or none."""
        names = ["", *(name for name, count in self.counts.items() if count)]
        here = self.filters[0] if self.filters and self.filters[0] in names else ""
        name = names[(names.index(here) + by) % len(names)]
        self.filters = [name] if name else []
        self.choose()

    def _toggle_steps(self) -> None:
        if self.training or self.shelf.step is None:
            raise UserError("only a run's answers have steps to go through")
        self.steps = not self.steps
        self.go(self.place)

    def _toggle_training(self) -> None:
        """The training rollouts of this step, or its answers; those of the last step that has any, if this has
        none."""
        if self.shelf.step is None:
            raise UserError("an evaluation has no training rollouts")
        there = written_steps(self.shelf.folder, runlog.ANSWERS if self.training else runlog.ROLLOUTS)
        self.open(self.another(not self.training, self.shelf.step if self.shelf.step in there else None))

    def _other_step(self, by: int) -> None:
        here = self.shelf.step
        steps = written_steps(self.shelf.folder, runlog.ROLLOUTS if self.training else runlog.ANSWERS)
        beyond = [step for step in steps[::by] if here is not None and (step - here) * by > 0]
        if not beyond:
            raise UserError(f"there is no {'later' if by > 0 else 'earlier'} step")
        self.open(self.another(self.training, beyond[0]))


def frame(reader: Reader, console: "Console", width: int, height: int) -> "list[Text]":
    """The whole screen, in rows of at most `width` columns: title, the entry from `reader.scroll`, state, keys."""
    from rich.text import Text

    body = [row for line in reader.lines for row in _rows(line, reader.search, console, width)]
    foot = _folded(_state(reader), width)
    foot += _folded([(words, "dim") for words in HELP], width) if height > 14 else []
    foot = foot[: max(0, height - 2)]
    reader.page = max(1, height - 1 - len(foot))
    reader.scroll = min(reader.scroll, max(0, len(body) - reader.page))
    here = body[reader.scroll : reader.scroll + reader.page]
    rows = [_title(reader, len(body)), *here, *[Text("")] * (reader.page - len(here)), *foot]
    for row in rows:
        row.no_wrap, row.overflow = True, "ellipsis"
    return rows[:height]


def browse(reader: Reader, out: TextIO) -> None:
    """Show the texts until somebody quits. The terminal is given back whatever happens. Raises Interrupted."""
    from rich.console import Console, Group
    from rich.control import Control

    console = Console(file=out, highlight=False)
    with stoppable() as check, keyboard(sys.stdin.fileno()) as keys, console.screen() as screen:
        size, changed = None, True
        while not keys.ended:
            if changed or console.size != size:
                size = console.size
                console.control(Control.home())
                screen.update(Group(*frame(reader, console, *size)))
            pressed = keys.read(LOOK_S)
            changed = bool(pressed)
            check()
            for key in pressed:
                if not reader.press(key):
                    return


def _key(together: Sequence[Pair]) -> tuple[str, str, int]:
    text = together[0].after
    return text.dataset, text.problem, text.group if isinstance(text, TrainingRollout) else text.sample


def _title(reader: Reader, rows: int) -> "Text":
    from rich.text import Text

    place = f"{reader.place + 1}/{len(reader.found)}" if reader.found else "0/0"
    last = min(rows, reader.scroll + reader.page)
    more = "" if rows <= reader.page else f"  rows {reader.scroll + 1}-{last} of {rows}"
    steps = "  all steps" if reader.steps and not reader.training else ""
    return Text(f" {place}  {shown(reader.shelf.title)}{steps}{more} ", "reverse")


def _state(reader: Reader) -> list[tuple[str, str]]:
    """Pieces of the status with their styles: what is chosen, and how many texts pass each filter."""
    if reader.typing is not None:
        return [(f"search: {shown(reader.typing)}_", "bold"), ("enter: go", "dim"), ("escape: leave it", "dim")]
    if reader.message:
        return [(shown(reader.message), "yellow")]
    pieces = [(f"all {len(reader.shelf.texts)}", "" if reader.filters else "bold reverse")]
    pieces += [
        (f"{name} {count}", "bold reverse" if name in reader.filters else "") for name, count in reader.counts.items()
    ]
    pieces += [(f"search '{shown(reader.search)}'", "bold")] if reader.search else []
    return pieces + ([("longest first", "bold")] if reader.longest else [])


def _folded(pieces: Sequence[tuple[str, str]], width: int) -> "list[Text]":
    """Pieces side by side, on as many rows as they need."""
    from rich.text import Text

    rows = [Text()]
    for words, style in pieces:
        for i, part in enumerate(textwrap.wrap(words, width)):
            if i or (rows[-1] and rows[-1].cell_len + 2 + len(part) > width):
                rows.append(Text())
            rows[-1].append("  " if rows[-1] else "").append(part, style)
    return rows


def _rows(line: Line, search: str, console: "Console", width: int) -> "list[Text]":
    """A line in rows of at most `width` columns; all but the first are indented as far as its text begins."""
    from rich.text import Text

    text = Text(line.text, line.style)
    if search and line.written:
        text.highlight_regex(re.compile(re.escape(search), re.IGNORECASE), "black on yellow")
    room = max(1, width - len(line.head))
    found = text.wrap(console, room, tab_size=8) or [Text()]
    heads = [line.head, *[" " * len(line.head)] * (len(found) - 1)]
    return [Text.assemble((head, "dim"), row) for head, row in zip(heads, found, strict=True)]
