"""A run finds its own files from any directory, keeps a copy of its reward, and says if they changed."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from r1v0 import config
from r1v0.base.errors import UserError
from r1v0.cli import main
from r1v0.runs import inputs

CODE = "def right(problem, text, finished):\n    return problem.answer in text\n"
SETS = ["steps=1", "grpo.groups=2", "grpo.group_size=2", "sampling.max_new_tokens=8", "threads=1", "eval.max_problems=2",
        "data.name=mine", "data.path=mine.jsonl", 'eval.on=["held=held.jsonl"]', "reward.name=mine.py:right",
        "reward.extra={\"extra.py:right\" = 0.5}"]  # fmt: skip


def sets(*items: str) -> list[str]:
    return [word for item in items for word in ("--set", item)]


def write(name: str, first: int) -> None:
    rows = [{"question": f"{i} and {i}?", "answer": str(2 * i)} for i in range(first, first + 20)]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of own data and rewards, named by relative paths; the working directory is then another."""
    monkeypatch.chdir(tmp_path)
    write("mine.jsonl", 0)
    write("held.jsonl", 50)
    for name in ("mine.py", "extra.py"):
        Path(name).write_text(CODE)
    assert main(["train", "--out", "run", *sets(*SETS)]) == 0
    Path("elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "run"


def again(run: Path, steps: int, *more: str) -> int:
    return main(["train", "--resume", str(run), *sets(f"steps={steps}", *more)])


def test_the_run_folder_holds_hashes_and_a_copy_of_the_rewards(run: Path) -> None:
    home = run.parent
    files = json.loads((run / "env.json").read_text())["files"]
    names = ["held.jsonl", "mine.jsonl", "extra.py", "mine.py"]
    assert sorted(files) == sorted(str(home / name) for name in names)
    for name in names:
        assert files[str(home / name)]["sha256"] == hashlib.sha256((home / name).read_bytes()).hexdigest()
    for name in ("mine.py", "extra.py"):
        assert (run / files[str(home / name)]["copy"]).read_text() == CODE
    assert f'name = "{home}/mine.py:right"' in (run / "config.toml").read_text()
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"reward/mine.py:right", "reward/extra.py:right"} < row.keys()


def test_it_goes_on_from_another_directory(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert again(run, 2) == 0
    assert "changed" not in capsys.readouterr().err
    assert main(["eval", str(run), *sets("eval.max_problems=2", "eval.max_new_tokens=4")]) == 0


def test_a_changed_file_is_told_and_used(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run.parent / "mine.py").write_text(CODE + "# better\n")
    (run.parent / "mine.jsonl").write_text((run.parent / "mine.jsonl").read_text() + "\n")
    assert again(run, 2) == 0
    told = capsys.readouterr().err
    assert f"{run.parent}/mine.py was changed since the run read it" in told
    assert f"as it was: {run}/inputs/mine.py" in told
    assert f"{run.parent}/mine.jsonl was changed since the run read it" in told
    assert "held.jsonl was" not in told
    copies = sorted(path.name for path in (run / "inputs").iterdir())
    assert len(copies) == 3
    assert (run / "inputs/mine.py").read_text() == CODE
    assert again(run, 3) == 0  # the change is known now
    assert "changed" not in capsys.readouterr().err


def test_a_reward_that_is_gone_is_the_runs_copy(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run.parent / "mine.py").unlink()
    assert again(run, 2) == 0
    assert f"the run goes on with its own copy, {run}/inputs/mine.py" in capsys.readouterr().err
    assert again(run, 3) == 0


def test_data_that_are_gone_are_named_and_may_be_moved(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.move(run.parent / "mine.jsonl", run.parent / "elsewhere" / "mine.jsonl")
    assert again(run, 2) == 2
    assert f"{run.parent}/mine.jsonl is not there any more" in capsys.readouterr().err
    assert again(run, 2, "data.path=mine.jsonl") == 0
    assert "changed" not in capsys.readouterr().err
    write("other.jsonl", 0)
    assert again(run, 3, "data.path=other.jsonl") == 2


def test_only_places_may_change() -> None:
    was = config.resolve(sets=["data.name=mine=/a/b.jsonl", "reward.name=/a/r.py:f", "model=/a/m"])
    config.need_resumable(was, config.resolve(sets=["data.name=mine=c/b.jsonl", "reward.name=r.py:f", "model=m"]))
    for change in ("data.name=mine=c/c.jsonl", "reward.name=r.py:g", "model=n", "data.name=other=c/b.jsonl"):
        with pytest.raises(UserError, match="may change on --resume"):
            config.need_resumable(
                was, config.resolve(sets=["data.name=mine=/a/b.jsonl", "reward.name=/a/r.py:f", "model=/a/m", change])
            )


def test_names_and_hub_ids_are_left_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ([], ["model=Qwen/Qwen2.5-1.5B", "data.name=math+gsm8k"], ["model=tiny", "data.path=openai/gsm8k"]):
        given = config.resolve(sets=text)
        assert inputs.located(given) == given
        assert inputs.record(given, tmp_path) == {}
