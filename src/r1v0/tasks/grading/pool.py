"""The verifier: grades completions while the trainer samples.

Decides: what is cheap is decided at once, in `submit`: rewards that are not isolated, strict matches, and answers
seen before. The rest goes to `processes.Processes`, which gives every task an end. The same question asked twice
while it is being answered is asked once. A verdict that could not be reached has reward 0 and says so in
`Score.failure` and `.why`; of a user's own reward each reason is also told once, to whoever collects the verdicts.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any, Self

from r1v0.config import RewardConfig
from r1v0.tasks.grading.processes import Deliver, Processes
from r1v0.tasks.math.answers import Question, as_stated, states
from r1v0.tasks.rewards import READINGS, check, combine, is_custom, is_isolated, names, quick
from r1v0.types import Problem, Score

CACHE_SIZE = 20_000
"""Answered questions that are remembered, the newest."""

LAST = "(last)"
"""The part of a verdict that reads the last value of a text without a stated answer."""

TOLD_AT_MOST = 8
"""Different reasons for failures that are told."""

_warn = logging.getLogger("r1v0").warning


@dataclass(slots=True)
class Counters:
    """What happened since the verifier was made.

    `graded` verdicts, of them `strict` by strict match, `disagreements` right by equivalence and not by strict
    match, `timeouts` and `crashes` not reached. `asked` questions went to a process, `cache_hits` did not have to.
    `restarts` of processes. `busy_s` seconds of grading, added up over processes.
    """

    graded: int = 0
    strict: int = 0
    disagreements: int = 0
    timeouts: int = 0
    crashes: int = 0
    asked: int = 0
    cache_hits: int = 0
    restarts: int = 0
    busy_s: float = 0.0

    def since(self, before: "Counters") -> dict[str, int]:
        """The verify/* of a step's metrics: what happened after `before`."""
        kinds = ("timeouts", "crashes", "disagreements")
        return {f"verify/{kind}": getattr(self, kind) - getattr(before, kind) for kind in kinds}


@dataclass(slots=True)
class _Job:
    """A completion and the parts of its verdict that are there; `missing` ones are with the processes. `stated`:
    whether it states an answer, where both readings are asked for."""

    missing: int
    scores: dict[str, Score]
    seconds: float
    stated: bool | None = None


class Verifier:
    """Grades completions: `submit` each, `collect` the verdicts. A context manager; `close` ends the processes.

    Processes are started at once and in the background, and only if a reward of the config is isolated. `submit`,
    `poll` and `collect` belong to one thread, which may be any. They raise UserError for a user's function that
    fails and for processes that cannot be started; the constructor raises it for an unknown reward.
    """

    def __init__(self, config: RewardConfig, note: Callable[[str], None] = _warn) -> None:
        check(config)
        self._config = config
        self._note = note
        self._news: list[str] = []
        self._told: set[tuple[str, str]] = set()
        self._names = names(config)
        self._changed = threading.Condition()
        self._counters = Counters()
        self._jobs: dict[int, _Job] = {}
        self._done: dict[int, tuple[Score, float]] = {}
        self._waiting: dict[Question, list[Deliver]] = {}
        self._cache: dict[Question, tuple[dict[str, Any], str]] = {}
        self._error: BaseException | None = None
        isolated = any(map(is_isolated, self._names))
        self._processes = Processes(config, self._fail) if isolated else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def counters(self) -> Counters:
        """A copy of the counters."""
        with self._changed:
            return replace(self._counters, restarts=self._processes.restarts if self._processes else 0)

    def submit(self, job: int, problem: Problem, text: str, finished: bool, both: bool = False) -> None:
        """Grade a completion, under a number of yours. Returns at once; cheap verdicts are then already there.
        `both`: also say what the verdict is under either of `reward.extraction`'s choices."""
        started = time.perf_counter()
        scores: dict[str, Score] = {}
        questions: dict[str, Question | None] = {}
        main = self._config.name
        stated = states(main, text) if both and main in READINGS else None
        for name in [*self._names, *([LAST] if stated is False and self._config.extraction == "boxed" else [])]:
            result = self._quick(name, problem, text, finished)
            if isinstance(result, Score):
                scores[name] = result
            else:
                questions[name] = result
        with self._changed:
            self._raise()
            if job in self._jobs or job in self._done:
                raise ValueError(f"job {job} was submitted before and has not been collected")
            self._jobs[job] = _Job(len(questions), scores, time.perf_counter() - started, stated)
            for name, question in questions.items():
                if question is not None:
                    self._ask(job, name, question)
                else:
                    message = {"reward": name, "problem": asdict(problem), "text": text, "finished": finished}
                    self._send(message, self._telling(name, problem.id, self._part(job, name, None)))
            self._finish(job)

    def _quick(self, name: str, problem: Problem, text: str, finished: bool) -> Score | Question | None:
        """What can be said at once: a Score, what is left to ask, or nothing (None)."""
        reads_last = name == LAST or self._config.extraction == "last"
        name = self._config.name if name == LAST else name
        if is_custom(name):
            return None
        if name in READINGS and reads_last:
            text = as_stated(name, text)
        found: Score | Question | None = quick(name)(problem, text, finished)
        return found

    def poll(self) -> dict[int, Score]:
        """The verdicts that are there, by job; each is given once. Does not wait."""
        with self._changed:
            self._raise()
            done, self._done = self._done, {}
        self._tell()
        return {job: score for job, (score, _) in done.items()}

    def collect(self) -> dict[int, Score]:
        """All verdicts that were not given yet, by job. Waits until none is missing."""
        return {job: score for job, (score, _) in self.collect_timed().items()}

    def collect_timed(self) -> dict[int, tuple[Score, float]]:
        """`collect`, with the seconds that each verdict took where it was made."""
        with self._changed:
            self._changed.wait_for(lambda: not self._jobs or self._error is not None)
            self._raise()
            done, self._done = self._done, {}
        self._tell()
        return done

    def compare(self, gold: str, answer: str) -> tuple[dict[str, Any], str, float]:
        """One symbolic comparison: (the fields of `symbolic.Comparison`, failure, seconds). Waits. For `math` only."""
        results: list[tuple[dict[str, Any], str, float]] = []

        def deliver(answer: dict[str, Any], failure: str, seconds: float) -> None:
            with self._changed:
                results.append((answer, failure, seconds))
                self._changed.notify_all()

        with self._changed:
            self._send({"compare": [gold, answer], "forms": True}, deliver)
            self._changed.wait_for(lambda: results or self._error is not None)
            self._raise()
        return results[0]

    def close(self) -> None:
        """End the processes. Verdicts that are not there are dropped. May be called twice."""
        with self._changed:
            self._error = self._error or ValueError("the verifier is closed")
        if self._processes is not None:
            self._processes.close()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _send(self, message: dict[str, Any], deliver: Deliver) -> None:
        if self._processes is None:
            raise ValueError("this verifier has no grading processes")
        self._counters.asked += 1
        self._processes.ask(message, deliver)

    def _ask(self, job: int, name: str, question: Question) -> None:
        """Have a question answered: from memory, or with those who wait for the same answer, or by a process."""
        part = self._part(job, name, question)
        if question in self._cache:
            self._counters.cache_hits += 1
            answer, failure = self._cache[question]
            part(answer, failure, 0.0)
        elif question in self._waiting:
            self._counters.cache_hits += 1
            self._waiting[question].append(part)
        else:
            self._waiting[question] = [part]
            message = {"compare": [question.gold, question.answer], "forms": False}
            self._send(message, lambda *result: self._settle(question, *result))

    def _settle(self, question: Question, answer: dict[str, Any], failure: str, seconds: float) -> None:
        """Tell all who asked, and remember. A timeout is remembered too: it would cost the deadline again. A crash
        is not."""
        with self._changed:
            if failure != "crash":
                self._cache[question] = (answer, failure)
                if len(self._cache) > CACHE_SIZE:
                    del self._cache[next(iter(self._cache))]
            for index, part in enumerate(self._waiting.pop(question)):
                part(answer, failure, 0.0 if index else seconds)

    def _part(self, job: int, name: str, question: Question | None) -> Deliver:
        """The function that puts an answer into a job's verdict."""

        def deliver(answer: dict[str, Any], failure: str, seconds: float) -> None:
            with self._changed:
                pending = self._jobs[job]
                if failure:
                    extracted = question.answer if question else None
                    reason: Any = failure
                    pending.scores[name] = Score(
                        0.0, False, extracted=extracted, failure=reason, why=answer.get("why", "")
                    )
                else:
                    pending.scores[name] = question.verdict(answer["equal"]) if question else Score(**answer["score"])
                pending.missing -= 1
                pending.seconds += seconds
                self._finish(job)

        return deliver

    def _telling(self, name: str, problem: str, deliver: Deliver) -> Deliver:
        """`deliver`, with a word about the first failure of each kind: a user's own reward should not have any."""

        def delivered(answer: dict[str, Any], failure: str, seconds: float) -> None:
            with self._changed:
                told = (name, answer.get("why", ""))
                if failure and told not in self._told and len(self._told) < TOLD_AT_MOST:
                    self._told.add(told)
                    self._news.append(
                        f"warning: reward '{name}' {told[1]} on problem '{problem}': graded 0, as is each such answer"
                    )
                deliver(answer, failure, seconds)

        return delivered

    def _tell(self) -> None:
        """In the thread that collects: what is told is drawn on a screen."""
        with self._changed:
            news, self._news = self._news, []
        for text in news:
            self._note(text)

    def _finish(self, job: int) -> None:
        pending = self._jobs.get(job)
        if pending is None or pending.missing:
            return
        del self._jobs[job]
        last = pending.scores.pop(LAST, None)
        score = combine(self._config, pending.scores)
        if pending.stated is not None:
            boxed = pending.stated and score.correct
            score = replace(score, correct_boxed=boxed, correct_last=(last or score).correct)
        self._done[job] = (score, pending.seconds)
        counters = self._counters
        counters.graded += 1
        counters.strict += score.strict
        counters.disagreements += score.correct and not score.strict
        counters.timeouts += score.failure == "timeout"
        counters.crashes += score.failure == "crash"
        counters.busy_s += pending.seconds
        self._changed.notify_all()
