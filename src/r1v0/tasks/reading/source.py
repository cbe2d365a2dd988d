"""What a dataset is to r1v0: where its rows are and which columns hold what; or how its problems are made."""

from collections.abc import Callable
from dataclasses import dataclass

from r1v0.tasks.math import gold
from r1v0.types import Problem

ID_COLUMNS = ("unique_id", "id")
LEVEL_COLUMN = "level"


@dataclass(frozen=True)
class Columns:
    """A question column, an answer column, and how the answer is taken out of the latter."""

    question: str
    answer: str
    gold: gold.Extractor


@dataclass(frozen=True)
class Source:
    """A dataset that is read. `train` and `test` are its splits for training and for evaluation; empty: it is not
    for that. `columns` are the forms in which copies of it are found: the first that a table has is taken. `reward`
    grades it unless a run names another. An evaluation gives it `tokens` an answer, takes `problems` of it (0: all)
    and does best with `samples` a problem; `preset` is taken where none is named."""

    hub: str
    columns: tuple[Columns, ...]
    train: str = ""
    test: str = ""
    subsets: tuple[str, ...] = ("",)
    reward: str = "math"
    preset: str = ""
    tokens: int = 4096
    problems: int = 0
    samples: int = 1


@dataclass(frozen=True)
class Generated:
    """A dataset that is made. `listed` gives the fixed problems of an evaluation; `drawn(seed, index, levels)` gives
    training problem number `index` of endlessly many, with `levels` out of those that it has. The rest as in Source."""

    listed: Callable[[], list[Problem]] | None = None
    drawn: Callable[[int, int, tuple[int, ...]], Problem] | None = None
    levels: tuple[int, ...] = ()
    reward: str = "math"
    preset: str = ""
    tokens: int = 256
    problems: int = 256
    samples: int = 1


# A dataset of the user's own, in order of preference. Worked solutions must mark their answer; other columns may.
COMMON = tuple(
    Columns(question, answer, extract)
    for question in ("problem", "question", "query", "prompt", "input")
    for answer, extract in (
        ("answer", gold.either),
        ("gold", gold.either),
        ("final_answer", gold.either),
        ("solution", gold.marked),
        ("response", gold.marked),
        ("output", gold.marked),
    )
)

OWN = Source("", COMMON, train="train", tokens=2048)
"""What holds for a dataset of the user's own."""
