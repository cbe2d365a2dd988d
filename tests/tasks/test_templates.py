"""A user's own prompt template, through the command line: trained on, evaluated, resumed from anywhere."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from r1v0.cli import main
from r1v0.models.loading import TINY

SMALL = ["grpo.groups=2", "grpo.group_size=4", "sampling.max_new_tokens=16", "eval.max_problems=4", "threads=1"]
MINE = "text = 'Q: {question} A:'\nstop = ['=']\n"


def sets(*items: str) -> list[str]:
    return [word for item in (*SMALL, *items) for word in ("--set", item)]


def texts(path: Path) -> list[str]:
    return [json.loads(line)["completion"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(MINE, encoding="utf-8")
    return tmp_path


def test_a_run_with_its_own_words_goes_on_without_their_file(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words stand in config.toml, so that file and folder may be gone; the end equals a run that was not
    stopped."""
    own = ["prompt.template=mine.toml", "eval.on=[]"]
    assert main(["train", "--out", "whole", *sets(*own, "steps=2")]) == 0
    assert main(["train", "--out", "part", *sets(*own, "steps=1")]) == 0
    Path("mine.toml").unlink()
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["train", "--resume", str(work / "part"), "--set", "steps=2"]) == 0
    whole, part = (load_file(work / name / "checkpoints/step-00002/model.safetensors") for name in ("whole", "part"))
    assert all(torch.equal(part[name], tensor) for name, tensor in whole.items())
    assert main(["eval", str(work / "part"), "--on", "countdown", "--out", "answers", *sets()]) == 0
    row = json.loads(Path("answers/evals.jsonl").read_text())
    assert (row["template"], row["problems"]) == ("mine.toml", 4)
    assert all(text.count("=") <= 1 for text in texts(Path("answers/answers.jsonl")))  # its stop text was heard


def test_eval_compares_files_names_and_the_models_own(work: Path) -> None:
    shutil.copytree(TINY, "model", copy_function=lambda here, there: Path(there).write_bytes(Path(here).read_bytes()))
    Path("model/chat_template.jinja").write_text("{% for m in messages %}Q: {{ m.content }} A:{% endfor %}")
    command = ["eval", "model", "--preset", "countdown", "--on", "countdown", "--out", "answers", *sets()]
    assert main([*command, "--template", "countdown,chat,mine.toml"]) == 0
    rows = [json.loads(line) for line in Path("answers/evals.jsonl").read_text().splitlines()]
    assert [row["template"] for row in rows] == ["countdown", "chat", "mine.toml"]
    same = [{key: row[key] for key in ("accuracy", "length", "pass_at_k")} for row in rows[:2]]
    assert same[0] == same[1]  # this chat template has the embedded template's words
    assert json.loads(Path("answers/eval.json").read_text())["prompts"]["mine.toml"]["stop"] == ["="]


def test_an_evaluation_does_not_go_on_under_other_words(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", "tiny", "--on", "countdown", "--out", "answers", "--template", "mine.toml", *sets()]
    assert main(command) == 0
    Path("mine.toml").write_text("text = 'R: {question} A:'\n", encoding="utf-8")
    capsys.readouterr()
    assert main(command) == 2
    assert "answers holds an evaluation with another prompts" in capsys.readouterr().err


@pytest.mark.parametrize(
    "verb", [["train", "--out", "run"], ["eval", "tiny", "--out", "run"], ["sample", "tiny", "1 2"]]
)
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("chat", "prompt.template is chat, but "),
        ("no.toml", "prompt template no.toml does not exist: "),
        ("bad.toml", "prompt template bad.toml: text has no place for the question: "),
        ("chatt", "unknown prompt template 'chatt': did you mean 'chat'?"),
    ],
)
def test_a_template_that_fails_leaves_nothing(
    work: Path, verb: list[str], template: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.toml").write_text("text = 'no place'", encoding="utf-8")
    before = sorted(Path().rglob("*"))
    assert main([*verb, *sets(f"prompt.template={template}", "eval.on=['countdown']", "steps=1")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"r1v0: {expected}")
    assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
