"""The model card: the hub's own library reads it back, and it says what the run's files say."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from r1v0.base.errors import UserError
from r1v0.config import parse, resolve
from r1v0.models.loading import TEXT_FILES, TINY
from r1v0.report.card import CARD, LICENCES, licence_of, model_card
from r1v0.report.table import markdown_table
from tests.run_folders import evals_row, write_run

CONFIG = resolve("countdown", sets=["steps=80"])


def row(step: int, accuracy: float, length: float, dataset: str = "countdown", **more: Any) -> dict[str, Any]:
    values = {"accuracy": accuracy, "ci_low": accuracy - 0.05, "ci_high": accuracy + 0.05, "length": length}
    return evals_row(step, dataset, **{**values, "truncated_frac": 0.0, **more})


ROWS = [
    row(0, 0.2, 34),
    row(0, 0.1, 34, "hard"),
    row(40, 0.6, 100, gain=0.4, gain_low=0.35, gain_high=0.45),
    row(40, 0.3, 150, "hard"),
    row(80, 0.8, 120, gain=0.6, gain_low=0.53, gain_high=0.66, truncated_frac=0.11),
    row(80, 0.5, 200, "hard", gain=0.4, gain_low=0.3, gain_high=0.5),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "run", [], ROWS)
    (folder / "env.json").write_text(
        json.dumps({"r1v0": "0.1.0", "git_commit": "c0ffee+", "started": "2026-11-25T11:00", "command": ["/home/me/x"]})
    )
    return folder


def metadata(card: str) -> dict[str, Any]:
    data: Any = ModelCard(card).data
    return dict(data.to_dict())


def section(card: str, name: str) -> str:
    return card.split(f"\n## {name}\n\n")[1].split("\n## ")[0].strip()


def test_the_hubs_own_library_reads_the_metadata(run: Path) -> None:
    config = resolve("qwen2.5-0.5b-gsm8k", sets=["steps=80"])
    card = model_card(run, 80, config, {"license": "mit"}, name="me/math")
    data = metadata(card)
    (index,) = data.pop("model-index")
    assert data == {
        "base_model": "Qwen/Qwen2.5-0.5B",
        "datasets": ["openai/gsm8k"],
        "library_name": "transformers",
        "license": "mit",
        "metrics": ["accuracy"],
        "pipeline_tag": "text-generation",
        "tags": ["r1v0", "grpo", "reinforcement-learning"],
    }
    assert index["name"] == "math"
    assert [(result["dataset"], result["metrics"]) for result in index["results"]] == [
        ({"name": name, "type": name}, [
            {"type": "accuracy", "value": value, "name": f"accuracy at step 80, with its 95 % interval: {told}"}
        ])
        for name, value, told in (("countdown", 0.8, "80 % [75, 85]"), ("hard", 0.5, "50 % [45, 55]"))
    ]  # fmt: skip
    assert ModelCard(card).text.lstrip().startswith("# math\n")


def test_accuracy_before_and_after_and_the_course(run: Path) -> None:
    card = model_card(run, 80, CONFIG, {})
    assert section(card, "Accuracy").splitlines()[2:4] == [
        "| countdown | 256 x 1 | 20 % [15, 25] | 80 % [75, 85] (step 80) | +60 points [+53, +66] | 34 to 120 | 11 % |",
        "| hard | 256 x 1 | 10 % [5, 15] | 50 % [45, 55] (step 80) | +40 points [+30, +50] | 34 to 200 | 0 % |",
    ]
    assert "temperature 1.0, at most 320 tokens" in section(card, "Accuracy")
    assert section(card, "Course") == markdown_table(
        ["step", "countdown", "hard"],
        [
            ["0", "20 % [15, 25], 34 tokens", "10 % [5, 15], 34 tokens"],
            ["40", "60 % [55, 65], 100 tokens", "30 % [25, 35], 150 tokens"],
            ["80", "80 % [75, 85], 120 tokens", "50 % [45, 55], 200 tokens"],
        ],
        0,
    )


def test_an_evaluation_of_other_weights_is_no_result(run: Path) -> None:
    card = model_card(run, 60, CONFIG, {})
    assert "model-index" not in card
    assert "| 60 % [55, 65] (step 40) |" in card
    assert "(step 80)" not in card
    assert "These weights are of step 60; the last evaluation before them was at step 40." in card
    first = model_card(run, 20, CONFIG, {})
    assert "| countdown | 256 x 1 | 20 % [15, 25] | - | - | 34 | 0 % |" in first
    assert "## Course" not in first


def test_a_run_without_evaluations_says_so(tmp_path: Path) -> None:
    card = model_card(write_run(tmp_path / "run", [], []), 3, CONFIG, {})
    assert section(card, "Accuracy") == "Not measured."
    assert "model-index" not in card
    assert "commit of r1v0: not known." in card


def test_a_long_run_has_twelve_points(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [], [row(step, 0.5, 50) for step in range(0, 1001, 10)])
    steps = [int(line.split("|")[1]) for line in section(model_card(run, 1000, CONFIG, {}), "Course").splitlines()[2:]]
    assert steps == [0, 90, 180, 270, 360, 450, 550, 640, 730, 820, 910, 1000]


def test_nothing_private_is_in_it(run: Path) -> None:
    lines = ["model = '/home/me/models/base'", "data.name = 'mine=/home/me/rows.jsonl'", "seed = 3",
             "reward.name = '/home/me/own.py:reward'", "eval.on = ['held=/home/me/held.jsonl']"]  # fmt: skip
    card = model_card(run, 80, parse("\n".join(lines), "x"), {})
    assert "/home" not in card
    assert "2026-11-25" not in card
    assert "# base after GRPO on mine\n" in card
    assert section(card, "Data").splitlines() == [
        "- trained on: mine (the user's own, rows.jsonl)",
        "- rewarded by: own.py:reward",
        "- evaluated on: held (the user's own, held.jsonl)",
    ]
    assert section(card, "Recipe").startswith("Seed 3; commit of r1v0: c0ffee, with changes beside it.")
    assert 'data.name = "mine=rows.jsonl"' in section(card, "Recipe")


@pytest.mark.parametrize(
    ("licence", "told"),
    [
        ({}, "not known: look at the base's page before you share this"),
        ({"license": "apache-2.0"}, "apache-2.0, as its own files say"),
        ({"license": "other", "license_name": "qwen", "license_link": "LICENSE"},
         "qwen LICENSE, as its own files say"),
        ({"license": "other"}, "other, as its own files say"),
    ],
)  # fmt: skip
def test_the_licence_is_the_bases_or_not_known(run: Path, licence: dict[str, str], told: str) -> None:
    card = model_card(run, 80, CONFIG, licence)
    assert section(card, "Base").splitlines()[-1] == f"- its licence: {told}"
    assert {key: value for key, value in metadata(card).items() if "license" in key} == licence


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({}, {}),
        ({CARD: "---\nlicense: mit\ntags: [x]\n---\n# x"}, {"license": "mit"}),
        ({CARD: "---\nlicense: mit\n---\n", "LICENSE": "Apache"}, {"license": "mit"}),
        ({CARD: "---\nlicense: other\nlicense_name: qwen\nlicense_link: LICENSE\n---\n"},
         {"license": "other", "license_name": "qwen", "license_link": "LICENSE"}),
        ({CARD: "# x\nlicense: mit"}, {}),
        ({CARD: "---\ntags: [x]\n---\n", "LICENSE.txt": "x"},
         {"license": "other", "license_name": "licence-of-the-base", "license_link": "LICENSE.txt"}),
        ({"NOTICE": "x"}, {}),
        # what is no front matter, or not what it should be
        ({CARD: "---\n- a\n- b\n---\n"}, {}),
        ({CARD: "---\nlicense: [mit, x]\n---\n"}, {}),
        ({CARD: "---\n{: [\n---\n"}, {}),
        ({CARD: "---\n1: 2\n---\n"}, {}),
        ({CARD: '---\nlicense: "a\\nb"\n---\n'}, {}),
        ({CARD: "---\nlicense: mit\n---\n" + "x" * (1 << 18)}, {}),
    ],
)  # fmt: skip
def test_where_a_licence_is_looked_for(files: dict[str, str], licence: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licence_of(tmp_path) == licence


def test_the_embedded_base_and_every_licence_file_go_with_the_weights() -> None:
    assert licence_of(TINY) == {"license": "apache-2.0"}
    assert set(LICENCES) <= set(TEXT_FILES)


def test_a_control_adapters_and_what_vllm_would_misread_are_told(run: Path) -> None:
    config = resolve("countdown", sets=["reward.control=random", "lora.rank=4", "prompt.template=r1-zero"])
    card = model_card(run, 80, config, {}, warning="vLLM cuts it", name="me/x", picture="curves.png")
    assert "**This is a control: its rewards were coin flips, whatever it answered.**" in card
    assert "`adapter/` holds it alone" in card
    assert "Beware: vLLM cuts it." in card
    assert "vllm serve" not in card
    assert 'An answer ends at the end token, or where one of these appears: `"</answer>"`.' in card
    assert section(card, "Course").startswith("![Accuracy, length and reward against the step, of the whole run](cur")
    plain = model_card(run, 80, CONFIG, {})
    assert "`vllm serve FOLDER`" in plain
    for told in ("control", "adapter", "Beware", "appears", "!["):
        assert told not in plain


def program(card: str, folder: Path, question: str) -> str:
    (code,) = re.findall(r"````python\n(.*?)\n````", card, re.DOTALL)
    return str(code).replace('name = "FOLDER"', f"name = {str(folder)!r}").replace('"..."', repr(question))


def test_its_program_runs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As it stands in the card; transformers asks what r1v0 would."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(program(model_card(run, 80, CONFIG, {}), TINY, "4 7 6 target 31"), {})
    assert re.search(r"\\boxed\{[-+*/()0-9]+\}", capsys.readouterr().out)


@pytest.mark.parametrize("text", ['Say "{question}"\n\\boxed{}', "é ````` {question}", "it's {question}"])
def test_words_of_any_kind_stay_what_they_are(run: Path, text: str) -> None:
    config = parse(f"prompt.template = 'mine'\nprompt.text = {json.dumps(text)}", "x")
    (line,) = re.findall(r"^prompt = .*$", model_card(run, 80, config, {}), re.MULTILINE)
    found: dict[str, Any] = {}
    exec(line, {"question": "1+1"}, found)
    assert found["prompt"] == text.replace("{question}", "1+1")


def test_a_chat_model_is_asked_by_its_template(run: Path) -> None:
    config = parse("prompt.template = 'chat'", "x")
    assert 'tokenizer.apply_chat_template([{"role": "user", "content": prompt}]' in model_card(run, 80, config, {})


def test_names_of_any_kind_do_not_break_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [], [row(80, 0.5, 50, "a|b\x1b[2J"), row(80, 0.5, 50, dataset="x: [y")])
    (run / "evals.jsonl").write_text(
        (run / "evals.jsonl").read_text() + json.dumps({"step": 80, "dataset": 3, "accuracy": "x"}) + "\n"
        + json.dumps({"step": 80, "dataset": "bare", "accuracy": 1}) + "\n"
    )  # fmt: skip
    card = model_card(run, 80, CONFIG, {})
    assert all(line.isprintable() for line in card.splitlines())
    assert "| a\\|b?[2J | 256 x 1 |" in card
    assert "| bare | None x None | - | 100 % (step 80) | - | - | - |" in card
    assert len(metadata(card)["model-index"][0]["results"]) == 3


def test_damaged_evaluations_are_one_line(run: Path) -> None:
    (run / "evals.jsonl").write_text('{"step": "x"}\n{"step": 1}\n')
    with pytest.raises(UserError, match="line 1 is damaged"):
        model_card(run, 80, CONFIG, {})
