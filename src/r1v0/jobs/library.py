"""r1v0 from Python: `import r1v0` offers these functions.

Decides: they do what the verbs of the command line do, by the same settings, and leave the same folders. A reward
that is given as a function is called in this process: it has no deadline and no memory limit; FILE.py:FUNCTION in
`reward.name` has.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1v0.base.errors import UserError
from r1v0.base.keys import key, shuffled
from r1v0.base.lock import hold
from r1v0.config import Config, changed, to_toml, validate
from r1v0.runs import runlog, settings
from r1v0.runs.claim import claimed
from r1v0.runs.progress import Progress
from r1v0.tasks import rewards
from r1v0.tasks.datasets import DATASETS
from r1v0.tasks.grading.custom import as_score
from r1v0.tasks.reading.source import Generated
from r1v0.types import EvalResult, Problem, Score

OWN, HELD_OUT = "own", "own-held-out"
"""The names of problems that a program gives, and of its reward."""

Pair = tuple[str, str]
"""A question and its answer."""

Reward = Callable[[Problem, str, bool], Any]
"""(problem, text, finished) -> a number, or a Score."""


def load_config(*sets: str, preset: str | None = None, file: Path | str | None = None) -> Config:
    """The settings that `r1v0 train` would take for `KEY=VALUE` strings, a preset and a TOML file. Raises UserError."""
    return settings.settle(preset=preset, file=None if file is None else Path(file), sets=sets).config


def train(
    config: Config | None = None,
    out: Path | str | None = None,
    problems: Iterable[Problem | Pair] | None = None,
    held_out: Iterable[Problem | Pair] | None = None,
    reward: Reward | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train, and return the run folder: `out`, or the next free one in runs/.

    `problems` and `held_out` take the place of `data.name` and `eval.on`, `reward` that of `reward.name`. `progress`
    is told what happens (the terminal, where there is none). Raises UserError and Interrupted, as `r1v0 train` does.
    """
    from r1v0.jobs import report
    from r1v0.jobs.train import about
    from r1v0.report.progress import open_progress
    from r1v0.runs.inputs import located, record
    from r1v0.runs.trackers import need_packages
    from r1v0.runs.tracking import Tracked
    from r1v0.trainer.setup import prepare

    config = with_own(config or load_config(), problems, held_out, reward)
    need_packages(config.track)
    trainer = prepare(config)
    trainer.config = located(trainer.config)
    with ExitStack() as stack:
        folder = Path(out) if out is not None else stack.enter_context(claimed("run"))
        stack.enter_context(hold(folder))
        files = record(trainer.config, folder)
        log = runlog.create(folder, to_toml(trainer.config), about(trainer, files))
        shown = stack.enter_context(open_progress(page=report.write) if progress is None else progress)
        trainer.run(log, stack.enter_context(Tracked(shown)))
    return folder


def evaluate(
    model: Path | str, on: Sequence[str], *sets: str, out: Path | str | None = None, progress: Progress | None = None
) -> list[EvalResult]:
    """Measure a model (a folder, a run, a hub id or "tiny") on datasets, as `r1v0 eval` does; a result for each
    dataset. The answers are in `out`, or in the next free runs/eval-001. Raises UserError and Interrupted."""
    from r1v0.jobs.eval import measure
    from r1v0.report.progress import open_progress
    from r1v0.rollouts.evaluate import result_of

    settled = settings.settle(str(model), sets=sets, flags={"on": {"eval": {"on": list(on)}}}, evaluates=True)
    with ExitStack() as stack:
        folder = Path(out) if out is not None else stack.enter_context(claimed("eval"))
        shown = stack.enter_context(open_progress(figures=False) if progress is None else progress)
        _, rows = measure(str(model), settled, [settled.config.prompt.template], folder, shown)
    return [result_of(row) for row in rows]


def sample(model: Path | str, question: str, *sets: str, samples: int = 1, greedy: bool = False) -> list[str]:
    """Answers to a question, as text. Raises UserError."""
    from r1v0.jobs.sample import texts

    return texts(str(model), question, settings.settle(str(model), sets=sets).config, samples, greedy)


def with_own(
    config: Config,
    problems: Iterable[Problem | Pair] | None,
    held_out: Iterable[Problem | Pair] | None,
    reward: Reward | None,
) -> Config:
    """The config that trains on a program's own problems with its own reward. Raises UserError for what is none."""
    changes: dict[str, Any] = {}
    if problems is not None:
        asked = as_problems(problems, OWN)
        DATASETS[OWN] = Generated(drawn=lambda seed, index, _: _drawn(asked, seed, index))
        changes |= {"data.name": OWN, "data.path": ""}
    if held_out is not None:
        measured = as_problems(held_out, HELD_OUT)
        DATASETS[HELD_OUT] = Generated(listed=lambda: measured)
        changes["eval.on"] = [HELD_OUT]
    elif problems is not None:
        changes["eval.on"] = []
    if reward is not None:
        rewards.REWARDS[OWN] = rewards.Reward("", call=_checked(reward))
        changes["reward.name"] = OWN
    found = changed(config, changes)
    validate(found)
    return found


def as_problems(given: Iterable[Problem | Pair], source: str) -> list[Problem]:
    """Problems of pairs (question, answer). Raises UserError for anything else, and for none at all."""
    found = []
    for number, problem in enumerate(given):
        if isinstance(problem, Problem):
            found.append(replace(problem, source=source))
        elif isinstance(problem, tuple) and len(problem) == 2 and all(isinstance(part, str) for part in problem):
            found.append(Problem(f"{source}/{number}", *problem, source))
        else:
            raise UserError(
                f"problem {number} is {problem!r:.80}: expected a Problem, or a pair (question, answer) of texts"
            )
    if not found:
        raise UserError("there are no problems: give at least one, as a pair (question, answer)")
    return found


def _drawn(problems: Sequence[Problem], seed: int, index: int) -> Problem:
    """Each problem once an epoch, in an order of its own."""
    epoch, place = divmod(index, len(problems))
    return problems[shuffled(len(problems), key(seed, "own", epoch))[place]]


def _checked(function: Reward) -> rewards.RewardFunction:
    name = getattr(function, "__name__", "reward")

    def graded(problem: Problem, text: str, finished: bool) -> Score:
        return as_score(function(problem, text, finished), name)

    return graded
