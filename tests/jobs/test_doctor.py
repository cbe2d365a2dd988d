"""`r1v0 doctor`: every finding fires on a run that has it, and not on a healthy one; nothing it may meet stops it."""

import gzip
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from r1v0 import cli
from r1v0.base.errors import UserError
from r1v0.config import resolve, to_toml
from r1v0.jobs import doctor
from r1v0.jobs.doctor.checks import Finding
from tests.config.test_config import TYPES
from tests.conftest import ROOT
from tests.run_folders import evals_row, metrics_row, write_run

Change = Callable[[int], Any]


def rows(count: int = 40, **keys: Any) -> list[dict[str, Any]]:
    """A healthy run that learns; a key's value may be a function of the step."""
    learning = {
        "reward__mean": lambda step: 0.3 + 0.4 * step / count,
        "reward__correct": lambda step: 0.3 + 0.4 * step / count,
        "reward__strict": lambda step: 0.28 + 0.4 * step / count,
        "length__correct": lambda step: 30 + step / 2,
        "length__wrong": lambda step: 30 + step,
        "verify__timeouts": 0,
        "verify__crashes": 0,
        "verify__disagreements": 0,
        "policy__skipped": 0,
        "time__verify_s": 0.01,
        "tokens__sampled": lambda step: 128 * (40 + step),  # 128 rollouts
    } | keys
    return [
        metrics_row(step, **{key: value(step) if callable(value) else value for key, value in learning.items()})
        for step in range(1, count + 1)
    ]


def evaluations(*accuracies: float, **last: Any) -> list[dict[str, Any]]:
    found = [
        evals_row(10 * i, accuracy=p, ci_low=p - 0.05, ci_high=p + 0.05, problems=256) for i, p in enumerate(accuracies)
    ]
    found[-1] |= last
    return found


GAIN = {"gain": 0.4, "gain_low": 0.3, "gain_high": 0.5}


def make(
    folder: Path,
    metrics: Sequence[Mapping[str, Any]] | None = None,
    evals: Sequence[Mapping[str, Any]] | None = None,
    sets: Sequence[str] = (),
    texts: Callable[[int, int], str] = lambda group, sample: f"answer {group} {sample}",
) -> Path:
    """A whole run of 40 steps, healthy where nothing else is given."""
    metrics = rows() if metrics is None else metrics
    write_run(folder, metrics, evaluations(0.2, 0.3, 0.4, 0.5, 0.6, **GAIN) if evals is None else evals)
    (folder / "config.toml").write_text(to_toml(resolve(sets=["steps=40", *sets])))
    (folder / "env.json").write_text(json.dumps({"cpu": "one", "packages": {"torch": "2"}}))
    rollouts(folder, 1, lambda group, sample: f"answer {group} {sample}")
    rollouts(folder, 40, texts)
    return folder


def rollouts(folder: Path, step: int, texts: Callable[[int, int], str]) -> None:
    path = folder / "rollouts" / f"step-{step:05d}.jsonl.gz"
    path.parent.mkdir(exist_ok=True)
    lines = [{"group": g, "sample": s, "completion": texts(g, s)} for g in range(4) for s in range(8)]
    with gzip.open(path, "wt") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def of(findings: Sequence[Finding], topic: str) -> list[Finding]:
    return [finding for finding in findings if finding.topic == topic]


def test_a_healthy_run_is_told_so(tmp_path: Path) -> None:
    found = doctor.examine(make(tmp_path / "run"))
    assert {finding.mark for finding in found} == {"ok"}
    topics = "learning, collapse, health, flat groups, truncation, grading, length, duplicates, progress, time, disk"
    assert {finding.topic for finding in found} == set(topics.split(", "))
    assert "gain +0.400 [+0.300, +0.500] (paired by problem, 95 %)" in of(found, "learning")[0].text


def from_step(step: int, then: Any, before: Any) -> Change:
    return lambda at: then if at >= step else before


# name -> (what is changed, topic, mark, words)
METRICS: dict[str, tuple[dict[str, Any], str, str, list[str]]] = {
    "entropy": ({"policy__entropy": from_step(20, 0.01, 0.8)}, "entropy low", "problem", ["at step", "0.8"]),
    "mismatch": ({"policy__mismatch_kl": from_step(20, 0.2, 1e-4)}, "mismatch kl", "problem", ["limit is 0.05"]),
    "reward": ({"reward__mean": from_step(20, 0.1, 0.5)}, "reward fall", "problem", ["its best, 0.5"]),
    "spikes": ({"policy__grad_norm": lambda s: 40.0 if s > 20 and s % 2 else 1.0}, "grad spike", "warning", ["median (1)"]),
    "cut off": ({"length__truncated_frac": 0.8}, "truncated", "problem", ["80%"]),
    "cut off a little": ({"length__truncated_frac": 0.3}, "truncation", "warning", ["30 %", "320 tokens"]),
    "too easy": ({"groups__flat_frac": 0.8, "groups__all_correct_frac": 0.8}, "flat groups", "warning", ["80 %", "harder"]),
    "too hard": ({"groups__flat_frac": 0.99, "groups__all_wrong_frac": 0.99}, "flat groups", "problem", ["99 %", "too hard"]),
    "clipping": ({"policy__clip_frac": 0.3}, "clipping", "warning", ["30 %", "grpo.minibatches"]),
    "skipped": ({"policy__skipped": lambda s: int(s == 5)}, "skipped", "warning", ["1 updates in 1 steps"]),
    "timeouts": ({"verify__timeouts": 2}, "grading", "problem", ["80 timeouts", "about 5120 gradings", "reward.timeout_s"]),
    "crashes": ({"verify__crashes": lambda s: int(s < 10)}, "grading", "warning", ["9 crashes", "reward.memory_mb"]),
    "drifting format": ({"reward__strict": lambda s: 0.3}, "strict grading", "warning", ["the format drifts"]),
    "steady disagreement": ({"verify__disagreements": 10}, "strict grading", "ok", ["right by equivalence"]),
    "short answers": ({"length__mean": from_step(20, 5.0, 40.0)}, "short answers", "warning", ["40 to 5 tokens"]),
    "loops": ({"length__wrong": from_step(20, 200.0, 40.0), "length__correct": 30.0}, "length", "warning", ["5.0 times", "1.0 times", "loops"]),
    "hacked parts": (
        {"reward__correct": 0.3, "reward__strict": 0.3, "reward__format": from_step(20, 0.9, 0.1)},
        "reward hacking", "problem", ["+0.00 only", "format +0.80", "reward.extra"],
    ),
    "slow grading": ({"time__verify_s": 0.4}, "time", "warning", ["reward.workers"]),
    "slow disk": ({"time__step_s": 5.0}, "time", "warning", ["disk"]),
}  # fmt: skip


@pytest.mark.parametrize("name", METRICS)
def test_findings_of_the_metrics(name: str, tmp_path: Path) -> None:
    changes, topic, mark, words = METRICS[name]
    found = of(doctor.examine(make(tmp_path / "run", rows(**changes))), topic)
    assert [finding.mark for finding in found] == [mark]
    assert [word for word in words if word not in found[0].text] == []


# name -> (evaluations, topic, mark, words)
EVALS: dict[str, tuple[list[dict[str, Any]], str, str, list[str]]] = {
    "worse": (evaluations(0.5, 0.3, gain=-0.2, gain_low=-0.3, gain_high=-0.1), "learning", "problem", ["worse than at the start"]),
    "no gain": (evaluations(0.5, 0.52, gain=0.02, gain_low=-0.05, gain_high=0.09), "learning", "warning", ["its interval holds 0"]),
    "unpaired": (evaluations(0.2, 0.5), "learning", "ok", ["+0.300 [+0.229, +0.371] (unpaired, 95 %)"]),
    "none": ([], "learning", "warning", ["no two held-out evaluations", "eval.on"]),
    "collapsed": (evaluations(0.2, 0.6, 0.4, **GAIN), "collapse", "problem", ["40 % at the end (step 20), 60 % at its best (step 10)"]),
    "hacked": (evaluations(0.5, 0.51, gain=0.01, gain_low=-0.05, gain_high=0.07), "reward hacking", "problem", ["rose by 0.32", "+0.01 only"]),
    "twice": ([*evaluations(0.2, 0.5), *evaluations(0.2, 0.5)], "resume gap", "problem", ["evals.jsonl"]),
    "long": ([row | {"time_s": 60.0} for row in evaluations(0.2, 0.5)], "time", "warning", ["eval.every"]),
}  # fmt: skip


@pytest.mark.parametrize("name", EVALS)
def test_findings_of_the_evaluations(name: str, tmp_path: Path) -> None:
    evals, topic, mark, words = EVALS[name]
    found = of(doctor.examine(make(tmp_path / "run", evals=evals)), topic)
    assert [finding.mark for finding in found] == [mark]
    assert [word for word in words if word not in found[0].text] == []


def test_a_control_must_not_learn(tmp_path: Path) -> None:
    flat = evaluations(0.2, 0.15, 0.1, gain=-0.1, gain_low=-0.2, gain_high=-0.02)
    good = doctor.examine(make(tmp_path / "good", evals=flat, sets=["reward.control=random"]))
    assert [finding.mark for finding in of(good, "learning")] == ["ok"]
    assert of(good, "collapse") == []
    bad = doctor.examine(make(tmp_path / "bad", sets=["reward.control=random"]))
    assert [finding.mark for finding in of(bad, "learning")] == ["problem"]


def test_repeated_completions(tmp_path: Path) -> None:
    found = of(doctor.examine(make(tmp_path / "run", texts=lambda group, sample: f"answer {group}")), "duplicates")
    assert [finding.mark for finding in found] == ["warning"]
    assert "88 % of completions repeat" in found[0].text  # 7 of 8 in each group
    assert "(0 % at step 1)" in found[0].text


def test_steps_that_are_missing_or_stand_twice(tmp_path: Path) -> None:
    whole = rows()
    (missing,) = of(doctor.examine(make(tmp_path / "a", [*whole[:10], *whole[13:]])), "resume gap")
    assert "3 steps are missing" in missing.text
    assert "11, 12, 13" in missing.text
    (doubled,) = of(doctor.examine(make(tmp_path / "b", [*whole[:10], *whole[8:]])), "resume gap")
    assert "2 steps stand twice" in doubled.text
    assert "9, 10" in doubled.text


def test_an_unfinished_run(tmp_path: Path) -> None:
    found = of(doctor.examine(make(tmp_path / "run", rows()[:30])), "progress")
    assert [(finding.mark, finding.text) for finding in found] == [
        ("warning", "30 of 40 steps are done; there is no checkpoint to go on from")
    ]
    (tmp_path / "run" / "checkpoints" / "step-00030").mkdir(parents=True)
    again = doctor.examine(tmp_path / "run")
    assert "--resume" in of(again, "progress")[0].text
    assert of(again, "checkpoint")[0].mark == "problem"
    assert "is damaged (trainer/state.json is missing)" in of(again, "checkpoint")[0].text


def test_parts_on_other_machines(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    same = {"cpu": "one", "packages": {"torch": "2"}}
    (run / "env.json").write_text(json.dumps(same | {"resumed": [{"after_step": 20, **same}]}))
    assert [finding.mark for finding in of(doctor.examine(run), "resumed")] == ["ok"]
    other = {"after_step": 30, "cpu": "two", "packages": {"torch": "3"}}
    (run / "env.json").write_text(json.dumps(same | {"resumed": [{"after_step": 20, **same}, other]}))
    (found,) = of(doctor.examine(run), "resumed")
    assert found.mark == "warning"
    assert "2 times (after step 20, 30)" in found.text
    assert "cpu: one to two after step 30" in found.text
    assert "torch: 2 to 3 after step 30" in found.text


def test_what_health_did_is_told(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    lines = [
        {"step": 20, "kind": "truncated", "action": "warn"},
        {"step": 21, "kind": "reward_fall", "action": "rollback", "to_step": 10, "lr_scale": 0.5},
        {"step": 30, "kind": "reward_fall", "action": "stop"},
    ]
    (run / "health.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = doctor.examine(run)
    assert of(found, "rollback")[0].text == "at step 21 to step 10, learning rate x 0.5, because of: reward_fall"
    assert of(found, "stop")[0].text == "at step 30, because of: reward_fall"


@pytest.mark.parametrize(
    "run", sorted(path.parent for path in (ROOT / "results").rglob("metrics.jsonl")), ids=lambda path: path.name
)
def test_real_runs_have_no_problems(run: Path) -> None:
    assert [finding for finding in doctor.examine(run) if finding.mark == "problem"] == []


# whatever it may meet


def test_an_empty_run_and_one_of_an_older_release(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.toml").write_text("")
    found = doctor.examine(tmp_path / "empty")
    assert [(finding.mark, finding.topic) for finding in found] == [("warning", "progress"), ("ok", "disk")]
    old = write_run(tmp_path / "old", [{"step": step, "reward/mean": 0.5} for step in range(1, 41)], [])
    assert {finding.topic for finding in doctor.examine(old)} >= {"learning", "progress", "damaged file"}


def test_damaged_files_are_told_and_left_out(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    good = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(
        b"".join(good[:20]) + b"\xff{torn\n[1, 2]\n" + b"".join(good[20:]) + b'{"step": 41, "rew'
    )
    (run / "evals.jsonl").write_bytes(b'{"step": 0, "dataset": "x", "accur')  # torn by a crash: no damage
    (run / "health.jsonl").write_bytes(b'{"step": "x"}\n' * 3)
    (run / "env.json").write_bytes(b"\xff")
    (run / "config.toml").write_text("steps = what")
    (run / "rollouts" / "step-00040.jsonl.gz").write_bytes(b"no gzip")
    found = doctor.examine(run)
    damaged = {finding.text.split()[0] for finding in of(found, "damaged file")}
    assert damaged == {"metrics.jsonl", "health.jsonl", "env.json", "config.toml"}
    assert of(found, "progress")[0].text == "40 of 80 steps are done; there is no checkpoint to go on from"


@pytest.mark.parametrize("junk", ["nan", "text", "list", "huge", "null", "negative", "bool"])
def test_values_of_any_kind_in_any_key(junk: str, tmp_path: Path) -> None:
    """A folder that somebody sends may hold anything; the doctor answers or leaves out, and never fails."""
    values: dict[str, Any] = {"nan": float("nan"), "text": "x", "list": [1], "huge": 10**400, "null": None, "negative": -1, "bool": True}  # fmt: skip
    metrics = [{key: value if key == "step" else values[junk] for key, value in row.items()} for row in rows()]
    evals = [
        {key: value if key in ("step", "dataset") else values[junk] for key, value in row.items()}
        for row in evaluations(0.2, 0.4, 0.5)
    ]
    run = make(tmp_path / "run", metrics, evals)
    (run / "env.json").write_text(
        json.dumps({"packages": values[junk], "resumed": [values[junk], {"packages": values[junk]}]})
    )
    (run / "health.jsonl").write_text(json.dumps({"step": 3, "action": values[junk], "to_step": values[junk]}) + "\n")
    for finding in doctor.examine(run):
        assert finding.text


def test_control_characters_of_a_run_do_not_reach_the_terminal(tmp_path: Path) -> None:
    evals = [row | {"dataset": "x\x1b[2J\n"} for row in evaluations(0.2, 0.4)]
    run = make(tmp_path / "run", evals=evals)
    text = doctor.report(run, doctor.examine(run), 100)
    assert "\x1b" not in text
    assert "\\x1b[2J" in text


# the command line


def test_the_report_is_ordered_wrapped_and_ends_with_1_where_there_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    run = make(tmp_path / "run", rows(length__truncated_frac=0.8, policy__clip_frac=0.3), sets=["steps=50"])
    assert cli.main(["doctor", str(run), str(run)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{run}: 1 problem, 2 warnings, ")
    marks = [line[2:10].strip() for line in lines if line.startswith("  ") and line[2:3].strip()]
    half = marks[: len(marks) // 2]
    assert half == sorted(half, key=doctor.MARKS.index)
    assert marks == half * 2
    assert max(map(len, lines[1:])) <= max(90, len(lines[0]))


def test_json_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(tmp_path / "run")
    assert cli.main(["doctor", "--json", str(run)]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["run"] == str(run)
    assert {"mark": "ok", "topic": "progress", "text": "all 40 steps are there, each once"} in record["findings"]


@pytest.mark.parametrize("given", ["nowhere", "file", "empty"])
def test_what_is_no_run_is_a_users_mistake(given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    assert cli.main(["doctor", str(tmp_path / given)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    with pytest.raises(UserError):
        doctor.examine(tmp_path / given)


def test_settings_that_findings_name_are_settings(tmp_path: Path) -> None:
    """Advice that names a setting which does not exist is worse than none."""
    sources = [
        *(ROOT / "src/r1v0/jobs/doctor").glob("*.py"),
        ROOT / "src/r1v0/runs/health.py",
        ROOT / "src/r1v0/trainer/recovery.py",
    ]
    sections = {key.partition(".")[0] for key in TYPES if "." in key}
    words = {
        word
        for path in sources
        for word in re.findall(r"\b([a-z]+\.[a-z_]+)\b", " ".join(re.findall(r'"[^"\n]*"', path.read_text())))
    }
    named = {word for word in words if word.partition(".")[0] in sections and not word.endswith((".py", ".jsonl"))}
    assert len(named) > 15
    assert named - TYPES.keys() == set()


def test_held_out_answers_that_are_cut_off_are_told(tmp_path: Path) -> None:
    rows_ = [*evaluations(0.2, 0.5, truncated_frac=0.18, **GAIN)]
    hard = [row | {"dataset": "countdown-hard", "truncated_frac": 0.3} for row in evaluations(0.1, 0.4)]
    little = rows(length__truncated_frac=0.046)
    (found, training) = of(doctor.examine(make(tmp_path / "run", little, [*rows_, *hard])), "truncation")
    assert found.mark == "warning"
    assert "18 % of countdown, 30 % of countdown-hard were cut off at 320 tokens" in found.text
    assert training.mark == "ok"
    few = evaluations(0.2, 0.5, truncated_frac=0.15, **GAIN)
    (fine,) = of(doctor.examine(make(tmp_path / "fine", little, few)), "truncation")
    assert "of held-out answers 15 % of countdown" in fine.text


def test_an_own_reward_that_always_gives_0_is_named(tmp_path: Path) -> None:
    none = {"reward__mean": 0, "reward__correct": 0, "reward__strict": 0}
    never = rows(groups__flat_frac=1.0, groups__all_wrong_frac=1.0, groups__all_correct_frac=0, **none)
    found = doctor.examine(make(tmp_path / "run", never, sets=["reward.name=mine.py:right"]))
    texts = [finding.text for finding in found if finding.mark == "problem"]
    assert any("mine.py:right, gave 0 to every answer" in text for text in texts)
    assert any("--reward mine.py:right" in text for text in texts)
    assert not any("too hard" in text for text in texts)


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ((), "No checkpoint is left, so none of step 10"),
        ((10, 20), "Use the checkpoint of step 10;"),
        ((20,), "No checkpoint of step 10 was kept; the nearest is of step 20 (checkpoints.keep_best keeps the best)"),
    ],
)
def test_after_a_collapse_it_names_weights_that_are_there(kept: tuple[int, ...], words: str, tmp_path: Path) -> None:
    run = make(tmp_path / "run", evals=evaluations(0.2, 0.6, 0.4, **GAIN))
    for step in kept:
        (run / "checkpoints" / f"step-{step:05d}").mkdir(parents=True)
    (found,) = of(doctor.examine(run), "collapse")
    assert words in found.text


def test_a_run_that_only_got_worse_has_no_checkpoint_of_step_0(tmp_path: Path) -> None:
    (found,) = of(doctor.examine(make(tmp_path / "run", evals=evaluations(0.6, 0.4, 0.3))), "collapse")
    assert "The model that the run began with is the best of it" in found.text


def test_an_evaluation_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--on",
        "countdown",
        "--set",
        "eval.max_problems=2",
        "--set",
        "eval.max_new_tokens=4",
        "--set",
        "threads=1",
    ]
    assert cli.main(["eval", "tiny", *words, "--out", str(tmp_path / "e")]) == 0
    assert cli.main(["doctor", str(tmp_path / "e")]) == 2
    error = capsys.readouterr().err
    assert "holds an evaluation of" in error
    assert "plot" in error


def test_a_collapse_in_the_first_steps_stands_first(tmp_path: Path) -> None:
    """494 M weights at 4e-6: entropy .27 to .05 after one update, reward .41 to .12 in six steps."""
    ill = rows(
        12,
        policy__entropy=lambda step: 0.27 if step == 1 else 0.05,
        reward__mean=lambda step: 0.41 if step < 3 else 0.12,
    )
    found = doctor.examine(make(tmp_path / "run", ill, [], ["optimizer.lr=4e-6"]))
    assert found[0].topic == "early collapse"
    assert found[0].mark == "problem"
    assert "optimizer.lr (4e-06) is too high" in found[0].text
