"""The verifier: deadlines, deaths, limits, and that no verdict is lost or swapped."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from r1v0.base.errors import UserError
from r1v0.config import RewardConfig
from r1v0.tasks.grading.pool import CACHE_SIZE, Verifier
from r1v0.tasks.grading.processes import DEATHS, KILLS, environment
from r1v0.types import Problem, Score
from tests.verifier_load import Killer, pids

CONFIG = RewardConfig(name="math", timeout_s=1.0)
SLACK_S = 0.5

# A reward that does what its text says.
MINE = textwrap.dedent(
    """
    import ctypes, json, os, resource, signal, sys, time
    from pathlib import Path
    from r1v0.types import Score

    def once(problem):
        first = not Path(problem.question).exists()
        Path(problem.question).touch()
        return first

    def reward(problem, text, finished):
        if text == "sleep":
            time.sleep(60)
        if text == "deaf":
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
            while True:
                pass
        if text == "children":
            if os.fork() == 0:
                Path(problem.question).write_text(str(os.getpid()))
                time.sleep(60)
            time.sleep(60)
        if text == "segfault" or text == "segfault once" and once(problem):
            ctypes.string_at(0)
        if text == "killed":
            os.kill(os.getpid(), 9)
        if text == "exit" or text == "exit once" and once(problem):
            os._exit(0)
        if text == "memory" or text == "memory once" and once(problem):
            return len(bytearray(4 << 30)) * 0.0
        if text == "raise":
            raise KeyError("no such key")
        if text == "none":
            return None
        if text == "print":
            print("to standard output")
            return True
        if text == "world":
            limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_CORE)]
            heavy = [name for name in ("torch", "transformers", "r1v0.trainer.loop", "sympy", "pickle") if name in sys.modules]
            alone = os.getsid(0) == os.getpid() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            return Score(1.0, True, extracted=json.dumps([dict(os.environ), limits, heavy, alone, sys.path[0]]))
        if text.startswith("slow "):
            time.sleep(0.005)
            return Score(float(text[5:]), text[5:] == problem.answer, extracted=problem.answer)
        if text == "echo":
            return Score(1.0, True, extracted=problem.answer)
        return float(text)
    """
)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> RewardConfig:
    path = tmp_path_factory.mktemp("reward") / "mine.py"
    path.write_text(MINE)
    return RewardConfig(name=f"{path}:reward", timeout_s=0.5, memory_mb=1024, workers=1)


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    """One for all tests of `math` that leave it whole: its processes take a second to start."""
    with Verifier(CONFIG) as verifier:
        yield verifier


def problem(answer: str, question: str = "") -> Problem:
    return Problem("p1", question, answer, "test")


def one(
    verifier: Verifier, text: str, gold: str = "5", question: str = "", finished: bool = True
) -> tuple[Score, float]:
    """Grade one completion; the verdict and the seconds that it took."""
    started = time.monotonic()
    verifier.submit(7, problem(gold, question), text, finished)
    (score,) = verifier.collect().values()
    return score, time.monotonic() - started


def test_right_and_wrong(verifier: Verifier) -> None:
    before = verifier.counters
    texts = ["\\boxed{5}", "\\boxed{10/2}", "\\boxed{6}", "", "\\boxed{}", "\\boxed{5", "<answer>5.0</answer>"]
    for job, text in enumerate(texts):
        verifier.submit(job, problem("5"), text, True)
    verifier.submit(len(texts), problem("5"), "\\boxed{5}", False)
    scores = verifier.collect()
    assert [scores[job].correct for job in range(8)] == [True, True, False, False, False, False, True, False]
    assert [scores[job].strict for job in range(8)] == [True] + [False] * 7
    assert scores[1] == Score(1.0, True, parts={"math": 1.0}, extracted="10/2")
    after = verifier.counters
    assert (after.graded - before.graded, after.strict - before.strict, after.asked - before.asked) == (8, 1, 2)
    assert after.disagreements - before.disagreements == 2
    assert verifier.collect() == {} == verifier.poll()


def test_cheap_verdicts_are_there_at_once(verifier: Verifier) -> None:
    verifier.submit(0, problem("5"), "\\boxed{5}", True)
    verifier.submit(1, problem("5"), "none", True)
    assert {job: score.correct for job, score in verifier.poll().items()} == {0: True, 1: False}


def test_the_same_question_is_asked_once(verifier: Verifier) -> None:
    before = verifier.counters
    for job in range(20):
        verifier.submit(job, problem("1/8"), "\\boxed{0.125}", True)
    assert [score.correct for score in verifier.collect().values()] == [True] * 20
    assert one(verifier, "so \\boxed{0.125}", "1/8")[0].correct
    assert one(verifier, "so \\boxed{0.125}", "1/4")[0].correct is False  # another gold answer, another question
    after = verifier.counters
    assert (after.asked - before.asked, after.cache_hits - before.cache_hits) == (2, 20)


def test_the_cache_is_bounded(verifier: Verifier) -> None:
    verifier._cache.clear()
    verifier._cache.update({f"q{i}": ({}, "") for i in range(CACHE_SIZE)})  # type: ignore[misc]
    one(verifier, "\\boxed{0.0625}", "1/16")
    one(verifier, "\\boxed{0.03125}", "1/32")
    size = len(verifier._cache)
    verifier._cache.clear()
    assert size == CACHE_SIZE


def test_a_job_number_is_used_once_at_a_time(verifier: Verifier) -> None:
    verifier.submit(0, problem("5"), "\\boxed{5}", True)
    with pytest.raises(ValueError, match="job 0 was submitted before"):
        verifier.submit(0, problem("5"), "\\boxed{5}", True)
    assert verifier.collect()[0].correct
    verifier.submit(0, problem("5"), "\\boxed{5}", True)
    assert verifier.collect()[0].correct


def test_off_the_main_thread(verifier: Verifier) -> None:
    found: list[Score] = []
    thread = threading.Thread(target=lambda: found.append(one(verifier, "\\boxed{25/5}")[0]))
    thread.start()
    thread.join()
    assert found[0].correct


HOSTILE = {  # those that end by their deadline first; tests/tasks/test_verifier_stress.py has more of them
    "tower of powers": "9^{9^{9^{9}}}",
    "deep nesting": "(" * 900 + "1" + ")" * 900,
    "unclosed commands": "\\frac{" * 20,
    "a megabyte of digits": "7" * 1_000_000,
    "2000 digits": "7" * 2000,
    "deep fractions": "\\frac{1}{" * 300 + "2" + "}" * 300,
    "unclosed boxes": "\\boxed{" * 250,
    "catastrophic for the units' pattern": "1" + " " * 1900 + "x",
    "catastrophic for the normalisation's patterns": "\\^(" * 400 + ")" * 400,
    "control characters": "\x00\x01\x1b[2J\x7f",
    "lone surrogates": "\ud800\udfff",
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_answer_is_wrong_within_the_deadline(verifier: Verifier, answer: str) -> None:
    one(verifier, f"\\boxed{{{random.random()}}}")  # so that a process is ready: the deadline counts from its task
    score, seconds = one(verifier, f"<answer>{answer}</answer>")
    assert (score.reward, score.correct) == (0.0, False)
    assert score.failure in ("", "timeout")
    assert seconds < CONFIG.timeout_s + SLACK_S


def test_a_timeout_is_told_counted_and_remembered(verifier: Verifier) -> None:
    before = verifier.counters
    score, seconds = one(verifier, "\\boxed{8^{8^{8^{8}}}}")
    why = "took more than reward.timeout_s = 1 s"
    assert score == Score(0.0, False, parts={"math": 0.0}, extracted="8^{8^{8^{8}}}", failure="timeout", why=why)
    assert seconds >= CONFIG.timeout_s
    score, seconds = one(verifier, "again \\boxed{8^{8^{8^{8}}}}")
    assert (score.failure, seconds < SLACK_S) == ("timeout", True)
    after = verifier.counters
    assert (after.timeouts - before.timeouts, after.restarts - before.restarts) == (2, 1)
    assert one(verifier, "\\boxed{15/3}")[0].correct


@pytest.mark.parametrize("text", ["sleep", "deaf"])
def test_a_process_that_does_not_answer_is_killed(mine: RewardConfig, text: str) -> None:
    with Verifier(mine) as verifier:
        assert one(verifier, "1")[0].correct
        score, seconds = one(verifier, text)
        assert (score.failure, score.reward) == ("timeout", 0.0)
        assert mine.timeout_s <= seconds < mine.timeout_s + SLACK_S
        assert one(verifier, "0.5")[0].reward == 0.5


def test_its_children_are_killed_with_it(mine: RewardConfig, tmp_path: Path) -> None:
    with Verifier(mine) as verifier:
        assert one(verifier, "children", question=f"{tmp_path}/pid")[0].failure == "timeout"
        assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("text", "attempts"), [("segfault", DEATHS), ("exit", DEATHS), ("memory", DEATHS), ("killed", KILLS)]
)
def test_a_death_is_told_after_some_attempts(mine: RewardConfig, text: str, attempts: int) -> None:
    with Verifier(mine) as verifier:
        score, _ = one(verifier, text)
        assert (score.reward, score.correct, score.failure) == (0.0, False, "crash")
        assert one(verifier, "1")[0].correct
        counters = verifier.counters
        assert (counters.crashes, counters.restarts, counters.graded) == (1, attempts, 2)


@pytest.mark.parametrize("text", ["segfault once", "exit once", "memory once"])
def test_a_death_by_accident_loses_no_verdict(mine: RewardConfig, text: str, tmp_path: Path) -> None:
    with Verifier(mine) as verifier:
        with pytest.raises(UserError, match="could not convert string to float"):
            one(verifier, text, question=f"{tmp_path}/marker")  # the second attempt went through to the last line
        assert (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise", r"raised KeyError: 'no such key' at line \d+ on problem 'p1'"),
        ("none", "returned NoneType None: expected a Score"),
    ],
)
def test_a_users_mistake_stops_the_run(mine: RewardConfig, text: str, message: str) -> None:
    with Verifier(mine) as verifier:
        with pytest.raises(UserError, match=message):
            one(verifier, text)
        with pytest.raises(UserError, match=message):
            verifier.poll()


def test_a_users_file_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import torch_of_another_name\n")
    with (
        Verifier(RewardConfig(name=f"{tmp_path}/mine.py:f")) as verifier,
        pytest.raises(UserError, match="ModuleNotFoundError"),
    ):
        one(verifier, "1")


PYTHON = {"PYTHONPATH", "PYTHONUSERBASE", "PYTHONHASHSEED"}


def test_what_a_process_knows_of_the_world(mine: RewardConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with Verifier(mine) as verifier:
        variables, limits, heavy, alone, path = json.loads(one(verifier, "world")[0].extracted or "")
    assert set(variables) - {"LC_CTYPE"} == environment().keys()
    assert environment().keys() <= {"PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "HOME", "OMP_NUM_THREADS"} | PYTHON
    assert "secret" not in str(variables)
    assert variables["HOME"] != str(Path.home())
    assert limits == [mine.memory_mb << 20, 0]
    assert heavy == []
    assert alone is True
    assert path == str(Path(mine.name).parent)


def test_the_environment_has_no_relative_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "src", *sys.path])
    entries = environment()["PYTHONPATH"].split(os.pathsep)
    assert os.path.abspath("src") in entries
    assert all(os.path.isabs(entry) for entry in entries)


def test_what_a_users_function_prints_is_no_answer(mine: RewardConfig, capfd: pytest.CaptureFixture[str]) -> None:
    with Verifier(mine) as verifier:
        assert one(verifier, "print")[0].correct
        assert one(verifier, "0")[0].reward == 0.0
    assert "to standard output" not in capfd.readouterr().out


def test_text_of_any_kind_survives_the_way(mine: RewardConfig) -> None:
    with Verifier(mine) as verifier:
        for text in ("\ud800", "a\x00b", "é\u2028", "\\boxed{5}", "", "7" * 1_000_000):
            assert one(verifier, "echo", gold=text)[0].extracted == text


def test_rewards_of_both_kinds_add_up(mine: RewardConfig) -> None:
    with Verifier(replace(mine, extra={"format_box": 0.25, "gsm8k": 2.0})) as verifier:
        score, _ = one(verifier, "echo")
        assert (score.reward, score.parts) == (1.0, {mine.name: 1.0, "format_box": 0.0, "gsm8k": 0.0})
    with Verifier(replace(mine, name="gsm8k", extra={mine.name: 2.0})) as verifier:
        score, _ = one(verifier, " 5\n", gold="5")  # a number for the user's, no answer for gsm8k
        assert (score.reward, score.correct, score.parts) == (10.0, False, {"gsm8k": 0.0, mine.name: 5.0})


def test_cheap_rewards_need_no_process() -> None:
    threads = threading.active_count()
    with Verifier(RewardConfig(name="gsm8k", extra={"format": 0.5})) as verifier:
        assert threading.active_count() == threads
        verifier.submit(0, problem("72"), "#### 72", True)
        assert verifier.poll() == {
            0: Score(1.0, True, strict=True, parts={"gsm8k": 1.0, "format": 0.0}, extracted="72")
        }
        assert verifier.collect() == {}


def test_starting_does_not_wait_for_the_processes() -> None:
    started = time.monotonic()
    verifier = Verifier(CONFIG)
    verifier.submit(0, problem("5"), "\\boxed{5}", True)
    assert verifier.poll()[0].correct
    assert time.monotonic() - started < 0.5
    verifier.close()
    verifier.close()
    with pytest.raises(ValueError, match="closed"):
        verifier.submit(1, problem("5"), "\\boxed{5}", True)


def test_closing_ends_the_processes(mine: RewardConfig) -> None:
    with Verifier(replace(mine, workers=2)) as verifier:
        verifier.submit(0, problem("5"), "sleep", True)
        verifier.submit(1, problem("5"), "1", True)
        while not verifier.poll():
            time.sleep(0.01)
        running = pids(verifier)
        assert len(running) == 2
        started = time.monotonic()
    assert time.monotonic() - started < SLACK_S
    assert all(map(gone, running))


def test_too_little_memory_is_told() -> None:
    with (
        Verifier(replace(CONFIG, memory_mb=20)) as verifier,
        pytest.raises(UserError, match=r"reward\.memory_mb is 20"),
    ):
        one(verifier, "\\boxed{10/2}")


def test_an_unknown_reward_is_told() -> None:
    with pytest.raises(UserError, match="did you mean 'math'"):
        Verifier(RewardConfig(name="maht"))


def test_a_ctrl_c_leaves_the_processes_alone(mine: RewardConfig) -> None:
    with Verifier(mine) as verifier:
        assert one(verifier, "1")[0].correct
        (pid,) = pids(verifier)
        os.kill(pid, signal.SIGINT)
        assert one(verifier, "1")[0].correct
        assert pids(verifier) == [pid]
        assert os.getpgid(pid) != os.getpgid(0)


@pytest.mark.parametrize("text", ["1", "deaf"])
def test_processes_end_with_the_trainer(mine: RewardConfig, text: str) -> None:
    """Killed outright: an idle process sees the socket close, and one that is deaf is killed by the kernel."""
    script = textwrap.dedent(
        f"""
        import os, sys, time
        from r1v0.config import RewardConfig
        from r1v0.tasks.grading.pool import Verifier
        from r1v0.types import Problem
        if __name__ == "__main__":
            verifier = Verifier(RewardConfig(name={mine.name!r}, timeout_s=1.0, workers=1))
            verifier.submit(0, Problem("p", "", "5", ""), "1", True)
            verifier.collect()
            print(verifier._processes._workers[0].process.pid, flush=True)
            verifier.submit(1, Problem("p", "", "5", ""), {text!r}, True)
            time.sleep(0.2)
            os.kill(os.getpid(), 9)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr
    assert gone(int(done.stdout), within_s=15)


def test_no_verdict_is_lost_or_swapped_while_processes_are_killed(mine: RewardConfig) -> None:
    """The small one; tests/tasks/test_verifier_stress.py has 10,000 real answers."""
    with Verifier(replace(mine, workers=2)) as verifier, Killer(verifier, seed=1, mean_s=0.15) as killer:
        for job in range(400):
            verifier.submit(job, problem(str(job - job % 3)), f"slow {job}", True)
        scores = verifier.collect()
    assert {job: (s.reward, s.correct, s.extracted, s.failure) for job, s in scores.items()} == {
        job: (float(job), job % 3 == 0, str(job - job % 3), "") for job in range(400)
    }
    assert killer.kills >= 3


def gone(pid: int, within_s: float = 5.0) -> bool:
    """Whether a process has ended (or is a zombie that nobody reaps) within some seconds."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False
