"""What a run tells whoever watches it: the trainer knows this silent form only, and `r1v0.report` the ones that
draw."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from r1v0.config import Config


class Progress:
    """What a run tells whoever watches it; this one is silent. Use as a context manager around the run."""

    def start(self, config: "Config", total_steps: int, out: Path) -> None:
        """Training begins, or goes on, in the run folder `out`."""

    def phase(self, name: str, done: int, total: int, **fields: float | str) -> None:
        """Work inside a step, or a job of its own (evaluation, pretraining), has got so far. Cheap to call.

        `total` 0: it is not known, and `done` counts tokens. `fields` are shown beside it (loss=2.31).
        """

    def step(self, metrics: Mapping[str, Any]) -> None:
        """A training step is done; the row of metrics.jsonl."""

    def evaluation(self, records: Sequence[Mapping[str, Any]]) -> None:
        """An evaluation is done; its rows of evals.jsonl, one a dataset."""

    def note(self, text: str) -> None:
        """One line that should stay on the screen: a warning, a checkpoint, an interruption."""

    def finish(self, summary: Mapping[str, object]) -> None:
        """The job is done; `summary` names what it left (for example checkpoint: its folder)."""

    def close(self) -> None:
        """Give the terminal back. `with` does it, also after an exception."""

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def polling(progress: Progress, check: Callable[[], None], phase: str) -> Callable[[int], None]:
    """What the sampler calls after every decoding step: show the tokens so far, and stop if asked to."""
    tokens = 0

    def poll(new: int) -> None:
        nonlocal tokens
        tokens += new
        check()
        progress.phase(phase, tokens, 0)

    return poll
