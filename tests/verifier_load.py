"""Mixed answers with known verdicts, and somebody who kills grading processes at random."""

import os
import random
import signal
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from r1v0.tasks.grading.pool import Verifier
from r1v0.types import Score


@dataclass(frozen=True)
class Answer:
    """A completion whose verdict is known by how it was made."""

    gold: str
    text: str
    finished: bool
    correct: bool
    hostile: bool = False

    def fits(self, score: Score) -> bool:
        """Whether a verdict is the right one. A hostile answer runs into its deadline, or is killed too often
        before."""
        ended = score.failure in ("timeout", "crash") if self.hostile else not score.failure
        return ended and score.correct == self.correct and score.reward == float(self.correct)


def mixed(count: int, seed: int, hostile: int) -> list[Answer]:
    """`count` answers in random order, of them `hostile` that never end. Numbers are all different, so that a
    verdict that came to the wrong answer would show."""
    rng = random.Random(seed)
    numbers = rng.sample(range(1000, 10 * count + 1000), count)
    answers = [
        Answer(str(n), f"<answer>{n}^{{9^{{9^{{9}}}}}}</answer>", True, False, hostile=True) for n in numbers[:hostile]
    ]
    answers += [rng.choice(KINDS)(n) for n in numbers[hostile:]]
    rng.shuffle(answers)
    return answers


KINDS = [
    lambda n: Answer(str(n), f"so $\\boxed{{{n}}}$.", True, True),
    lambda n: Answer(str(n), f"so \\boxed{{\\frac{{{2 * n}}}{{2}}}}", True, True),
    lambda n: Answer(str(n), f"so \\boxed{{\\frac{{{2 * n + 2}}}{{2}}}}", True, False),
    lambda n: Answer(f"\\frac{{{n}}}{{7}}", f"<answer>{2 * n}/14</answer>", True, True),
    lambda n: Answer(f"\\frac{{{n}}}{{7}}", f"<answer>{n}/14</answer>", True, False),
    lambda n: Answer(f"({n}, {n + 1}]", f"\\boxed{{\\left({n}, \\frac{{{2 * n + 2}}}{{2}}\\right]}}", True, True),
    lambda n: Answer(f"({n}, {n + 1}]", f"\\boxed{{\\left[{n}, \\frac{{{2 * n + 2}}}{{2}}\\right]}}", True, False),
    lambda n: Answer(f"x+{n}", f"\\boxed{{{n}+x}}", True, True),
    lambda n: Answer(f"x+{n}", f"\\boxed{{{n}-x}}", True, False),
    lambda n: Answer(f"{n}", f"\\boxed{{{n - 1}+1}}", False, False),
    lambda n: Answer(f"{n}", f"\\boxed{{{n - 1}+1", True, False),
    lambda n: Answer(f"{n}", f"\\boxed{{\ud800{n}}}", True, False),
    lambda n: Answer(f"{n}", f"\\boxed{{\\text{{{n} apples}}", True, False),
]


class Killer:
    """A thread that kills (SIGKILL) one of a verifier's processes, whatever it is grading, at random intervals."""

    def __init__(self, verifier: Verifier, seed: int, mean_s: float) -> None:
        self.kills = 0
        self._verifier = verifier
        self._random = random.Random(seed)
        self._mean_s = mean_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._random.expovariate(1 / self._mean_s)):
            running = pids(self._verifier)
            if running:
                try:
                    os.kill(self._random.choice(running), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.kills += 1


def pids(verifier: Verifier) -> list[int]:
    """The numbers of a verifier's grading processes that are ready."""
    processes = verifier._processes
    return [] if processes is None else [worker.process.pid for worker in list(processes._workers) if worker.ready]


HOSTILE = {
    "tower of powers": "9^{9^{9^{9}}}",
    "tower of twos": "2^{2^{2^{2^{2^{2}}}}}",
    "factorials of factorials": "((99!)!)!",
    "a large factorial": "99999999!",
    "a large power of a sum": "(1+x)^{99999999}",
    "a large binomial": r"\binom{10^9}{5\cdot10^8}",
    "a huge sum": r"\sum_{k=1}^{10^{12}} k^k",
    "a huge product": r"\prod_{k=1}^{10^9} k",
    "an integral": r"\int_0^1 x^x \sin(x^x) e^{x^x} dx",
    "a limit": r"\lim_{x\to 0} \frac{\sin(\tan(x))-\tan(\sin(x))}{x^7}",
    "deep parentheses": "(" * 900 + "1" + ")" * 900,
    "deep braces": "{" * 900 + "1" + "}" * 900,
    "deep fractions": r"\frac{1}{" * 300 + "2" + "}" * 300,
    "deep roots": r"\sqrt{" * 300 + "2" + "}" * 300,
    "deep powers": "x^{" * 300 + "2" + "}" * 300,
    "unclosed braces": "{" * 1999,
    "unclosed commands": r"\frac{" * 300,
    "bars": "|" * 1000,
    "bars and letters": "|x" * 500,
    "a megabyte of digits": "7" * 1_000_000,
    "2000 digits": "7" * 2000,
    "250 variables": "+".join(f"x_{{{i}}}" for i in range(250)),
    "a product of 200 factors": "".join(f"(x+{i})" for i in range(200)),
    "a list of 500": ",".join(map(str, range(500))),
    "a union of 120 intervals": r"\cup".join(f"({2 * i},{2 * i + 1})" for i in range(120)),
    "a power of a matrix": r"\begin{pmatrix}" + r"\\".join("&".join(["x"] * 20) for _ in range(20)) + r"\end{pmatrix}^{100}",
    "catastrophic for normalisation: ^(": r"\^(" * 400 + ")" * 400,
    "catastrophic for normalisation: spaces": "1" + " " * 1900 + "x",
    "catastrophic for normalisation: \\frac": r"\frac" * 400,
    "catastrophic for normalisation: \\text": r"\text " * 300,
    "catastrophic for normalisation: commas": "1," * 900 + "a",
    "a chain of equations": "=".join(["x"] * 600),
    "a chain of inequalities": "<".join(["x"] * 600),
    "minus signs": "-" * 1500 + "1",
    "a sum of 900": "1+" * 900 + "1",
    "a chain of powers": "2^" * 300 + "2",
    "twenty factorials": "3" + "!" * 20,
    "gamma": r"\Gamma(10^{10})",
    "a sine of a large number": r"\sin(10^{10^{5}})",
    "exponentials": "e^{e^{e^{e^{e}}}}",
    "twelve roots": "+".join(rf"\sqrt{{{p}}}" for p in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)),
    "a quotient of products": r"\frac{" + "".join(rf"(\sin(x^{{{i}}})+{i})" for i in range(1, 40)) + "}{"
    + "".join(rf"(\cos(x^{{{i}}})+{i})" for i in range(1, 40)) + "}",
    "control characters": "\x00\x01\x1b[2J\x7f",
    "lone surrogates": "\ud800\udfff",
    "combining marks": "5" + "\u0301" * 1000,
    "backslashes": "\\" * 1999,
}  # fmt: skip
"""Answers that are wrong for any gold answer, and meant to hang or break what grades them."""
