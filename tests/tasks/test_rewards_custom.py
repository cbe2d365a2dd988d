"""A user's own reward may do anything: each outcome has a name, reaches the user, and none is a silent 0."""

import textwrap
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from r1v0 import cli
from r1v0.base.errors import UserError
from r1v0.config import RewardConfig
from r1v0.tasks.grading import custom
from r1v0.tasks.grading.pool import Verifier
from r1v0.types import Problem, Score

ONE = Problem("p1", "q", "5", "test")


def reward_of(folder: Path, body: str, before: str = "") -> RewardConfig:
    """A config whose reward is a function with this body."""
    path = folder / "mine.py"
    path.write_text(
        f"{before}\ndef reward(problem, text, finished):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
    )
    return RewardConfig(name=f"{path}:reward", timeout_s=1.0, memory_mb=512, workers=1)


def graded(config: RewardConfig, count: int = 1) -> tuple[list[Score], list[str]]:
    """Verdicts of as many completions, and what was told about them."""
    notes: list[str] = []
    with Verifier(config, notes.append) as verifier:
        for job in range(count):
            verifier.submit(job, ONE, "text", True)
        scores = verifier.collect()
    return [scores[job] for job in range(count)], notes


STOPS = {
    "sys.exit()": ("import sys\nsys.exit()", "raised SystemExit at line 4 on problem"),
    "sys.exit(0)": ("import sys\nsys.exit(0)", "raised SystemExit: 0 at line 4"),
    "quit()": ("quit()", "raised SystemExit: None at line 3"),
    "exit with words": ("raise SystemExit('all done')", "raised SystemExit: all done at line 3"),
    "Ctrl-C's exception": ("raise KeyboardInterrupt", "raised KeyboardInterrupt at line 3"),
    "GeneratorExit": ("raise GeneratorExit", "raised GeneratorExit at line 3"),
    "an exception of its own": ("class E(BaseException): pass\nraise E('odd')", "raised E: odd at line 4"),
    "an exception that cannot be shown": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        "raised E: (which cannot be shown)",
    ),
    "several exceptions": ("raise ExceptionGroup('both', [ValueError(1), KeyError(2)])", "raised ExceptionGroup: both (2"),
    "assert": ("assert text == problem.answer, 'no'", "raised AssertionError: no at line 3"),
    "recursion": ("return reward(problem, text, finished)", "raised RecursionError: maximum recursion depth exceeded"),
    "input()": ("return float(input())", "raised EOFError: "),
    "a wrong signature": ("return reward(1)", "raised TypeError: reward() missing 2 required positional arguments"),
    "nothing": ("pass", "returned NoneType None: expected a Score, a finite number or a bool"),
    "text": ("return '1'", "returned str '1': expected"),
    "nan": ("return float('nan')", "returned float nan: expected"),
    "infinity": ("return 1e999", "returned float inf: expected"),
    "a number past all floats": ("return 10 ** 400", "returned int 1000"),
    "a pair": ("return 1.0, 'why'", "returned tuple (1.0, 'why'): expected"),
    "a dictionary": ("return {'score': 1.0}", "returned dict {'score': 1.0}: expected"),
    "a complex number": ("return 1j", "returned complex 1j: expected"),
    "several numbers": ("import numpy\nreturn numpy.ones(2)", "returned numpy.ndarray array([1., 1.]): expected"),
    "nan of NumPy's": ("import numpy\nreturn numpy.float32('nan')", "returned numpy.float32 "),
    "a generator": ("yield 1.0", "(a function with `yield` returns none of its values): expected"),
    "what cannot be shown": (
        "class E:\n    def __repr__(self): raise ValueError\nreturn E()",
        "E (which cannot be shown): expected",
    ),
    "a Score of nothing": ("from r1v0.types import Score\nreturn Score(None, True)", "returned NoneType None: expected"),
}  # fmt: skip


@pytest.mark.parametrize("kind", STOPS)
def test_a_mistake_stops_the_run_and_is_told(tmp_path: Path, kind: str) -> None:
    body, expected = STOPS[kind]
    with pytest.raises(UserError) as caught:
        graded(reward_of(tmp_path, body))
    said = str(caught.value)
    assert said.startswith(f"reward '{tmp_path}/mine.py:reward' ")
    assert expected in said
    assert len(said) < 700
    assert "raised" not in expected or "on problem 'p1': fix the function" in said


def test_an_async_function_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("async def reward(problem, text, finished):\n    return 1.0\n")
    with pytest.raises(UserError, match=r"returned coroutine <coroutine object reward at .*`async` is not awaited"):
        graded(RewardConfig(name=f"{path}:reward", timeout_s=1.0, workers=1))


@pytest.mark.parametrize("body", ["import sys\nsys.exit(3)", "raise KeyboardInterrupt", "quit()"])
def test_a_file_that_ends_while_it_is_loaded_is_told(tmp_path: Path, body: str) -> None:
    with pytest.raises(
        UserError, match=r"mine\.py:reward': running the file raised (SystemExit|Keyboard).*fix the file"
    ):
        graded(reward_of(tmp_path, "return 1.0", before=body))


FAILS = {
    "os._exit(0)": ("import os\nos._exit(0)", "crash", "ended its process with exit code 0"),
    "os._exit(3)": ("import os\nos._exit(3)", "crash", "ended its process with exit code 3"),
    "abort": ("import os\nos.abort()", "crash", "ended its process by SIGABRT"),
    "a crash in C": ("import ctypes\nctypes.string_at(0)", "crash", "ended its process by SIGSEGV"),
    "an alarm": ("import signal, time\nsignal.alarm(1)\ntime.sleep(0.1)\nos = signal.raise_signal(14)", "crash",
                 "ended its process by SIGALRM"),
    "killed": ("import os\nos.kill(os.getpid(), 9)", "crash", "ended its process by SIGKILL"),
    "memory": ("return len(bytearray(4 << 30)) * 0.0", "crash", "took more than reward.memory_mb = 512 MB"),
    "time": ("while True: pass", "timeout", "took more than reward.timeout_s = 1 s"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAILS)
def test_what_ends_its_process_is_graded_0_and_told_once(tmp_path: Path, kind: str) -> None:
    body, failure, why = FAILS[kind]
    config = reward_of(tmp_path, body)
    scores, notes = graded(config, count=2)
    assert [(score.reward, score.correct, score.failure, score.why) for score in scores] == [
        (0.0, False, failure, why)
    ] * 2
    assert notes == [f"warning: reward '{config.name}' {why} on problem 'p1': graded 0, as is each such answer"]


def test_a_reason_is_told_of_a_part_too(tmp_path: Path) -> None:
    mine = reward_of(tmp_path, "import os\nos._exit(3)")
    scores, notes = graded(RewardConfig(name="gsm8k", extra={mine.name: 0.5}, workers=1))
    assert (scores[0].failure, scores[0].why) == ("crash", "ended its process with exit code 3")
    assert len(notes) == 1


NUMBERS: list[tuple[Any, float]] = [
    (np.float32(0.5), 0.5),
    (np.float64(1.0), 1.0),
    (np.int64(1), 1.0),
    (np.bool_(True), 1.0),
    (np.array(0.25), 0.25),
    (np.array([0.25]), 0.25),
    (torch.tensor(0.5), 0.5),
    (torch.tensor([True]), 1.0),
]


@pytest.mark.parametrize(("result", "reward"), NUMBERS)
def test_numbers_of_other_libraries_are_numbers(result: Any, reward: float) -> None:
    assert custom.as_score(result, "x.py:f") == Score(reward, reward >= 1)
    assert custom.as_score(Score(result, np.bool_(True)), "x.py:f") == Score(reward, True)  # type: ignore[arg-type]


@pytest.mark.parametrize("result", [Decimal("1"), "1.0", [1.0], np.ones(2), torch.ones(2), np.float64("nan")])
def test_other_things_are_not(result: Any) -> None:
    with pytest.raises(UserError, match="expected a Score, a finite number or a bool"):
        custom.as_score(result, "x.py:f")


HARMLESS = {
    "printing": "import os, sys\nprint('x' * 100_000)\nos.write(1, b'raw')\nsys.stderr.write('e')\nreturn 1.0",
    "no standard output": "import sys\nsys.stdout = None\nprint('x')\nsys.stdin.close()\nreturn 1.0",
    "a thread that ends the program": "import sys, threading\nt = threading.Thread(target=sys.exit)\nt.start()\nt.join()\n"
    "return 1.0",
    "a thread that goes on": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\nreturn 1.0",
    "a child": "import subprocess\nsubprocess.run(['true'], check=True)\nreturn 1.0",
    "a pool": "import multiprocessing\nwith multiprocessing.get_context('fork').Pool(2) as pool:\n"
    "    return pool.map(float, [1, 2])[0]",
    "asyncio": "import asyncio\nasync def f(): return 1.0\nreturn asyncio.run(f())",
    "signals": "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nreturn 1.0",
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_is_no_mistake_is_graded(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    scores, notes = graded(reward_of(tmp_path, HARMLESS[kind]), count=3)
    assert [score.reward for score in scores] == [1.0] * 3
    assert notes == []
    assert capfd.readouterr().out == ""


def test_a_forked_child_that_returns_too_swaps_no_verdict(tmp_path: Path) -> None:
    """Two processes then answer on one line: what does not fit its question is thrown away with its process."""
    config = reward_of(tmp_path, "import os\nif text == 'fork': os.fork()\nreturn float(len(text))")
    with Verifier(config) as verifier:
        for job in range(20):
            verifier.submit(job, ONE, "fork" if job % 5 == 0 else "x" * job, True)
        scores = verifier.collect()
    for job in range(20):
        wanted = 4.0 if job % 5 == 0 else float(job)
        assert scores[job].reward == wanted or scores[job].failure == "crash"


def test_doctor_says_what_an_own_reward_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not that memory is short: the reason stands in the run's rollouts."""
    config = reward_of(tmp_path, "import os\nos._exit(3)")
    sets = [
        f"reward.name={config.name}",
        "reward.workers=1",
        "steps=1",
        "eval.on=[]",
        "grpo.groups=1",
        "grpo.group_size=2",
    ]
    words = [word for item in [*sets, "sampling.max_new_tokens=4", "threads=1"] for word in ("--set", item)]
    assert cli.main(["train", "--out", str(tmp_path / "run"), *words]) == 0
    printed = "".join(capsys.readouterr())
    assert printed.count(f"warning: reward '{config.name}' ended its process with exit code 3 on problem ") == 1
    cli.main(["doctor", str(tmp_path / "run")])
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "2 crashes in about 2 gradings; most of them ended its process with exit code 3 (100 %), scored 0: look at"
        in said
    )
    assert "memory_mb" not in said


def test_sys_exit_in_a_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = reward_of(tmp_path, "import sys\nsys.exit()")
    words = [word for item in (f"reward.name={config.name}", "steps=1", "eval.on=[]") for word in ("--set", item)]
    assert cli.main(["train", "--out", str(tmp_path / "run"), *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith(f"r1v0: reward '{config.name}' raised SystemExit at line 4 on problem ")
