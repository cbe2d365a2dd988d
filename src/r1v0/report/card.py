"""The model card of a checkpoint: its README.md, as the hub shows it.

Decides: a card says what the run's files say, and nothing else. It holds no time, no folder and no text of the model,
so that equal runs have equal cards and nothing private is published. The result in its metadata is an evaluation of
these very weights; an earlier one is in the text alone, with its step. The licence is what the base's own files say, or
"not known".
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1v0 import __version__
from r1v0.base import reading
from r1v0.base.stats import number
from r1v0.config import CHAT, Config, printable
from r1v0.report import recipe
from r1v0.report.status import (
    accuracy,
    amount,
    share,
)
from r1v0.report.table import markdown_table
from r1v0.runs.records import read_evals
from r1v0.runs.runlog import environment_of
from r1v0.runs.settings import TINY
from r1v0.tasks.prompts import words_of

Row = Mapping[str, Any]
Course = Mapping[str, Sequence[Row]]
"""dataset -> its rows of evals.jsonl, the oldest first"""

CARD = "README.md"
MAX_BYTES = 1 << 18
LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md")
KEYS = ("license", "license_name", "license_link")
ROWS = 12
"""evaluations in the table of the course at most, the first and the last among them"""


def model_card(
    run: Path,
    step: int,
    config: Config,
    licence: Mapping[str, str],
    warning: str | None = None,
    name: str = "",
    picture: str = "",
) -> str:
    """README.md of the weights after `step` steps, with the evaluations that the run holds up to there.

    `licence` is the base's (`licence_of`); `warning` is what another program makes of the folder; `name` is the hub id,
    if there is one; `picture` is the file of the figure beside the card. Raises UserError for a damaged evals.jsonl.
    """
    course = evaluations(run, step)
    base = printable(recipe.base_of(config.model)[0])
    title = name.rpartition("/")[2] or printable(f"{base.rpartition('/')[2]} after GRPO on {bare_names(config)}")
    said = environment_of(run)
    known = {key: text for key in ("r1v0", "git_commit") if isinstance(text := said.get(key), str)}
    parts = [
        f"---\n{_metadata(course, step, config, licence, title)}\n---",
        f"# {title}",
        _introduction(step, config, base, printable(known.get("r1v0", __version__))),
        _base(config, base, licence),
        _data(config),
        _accuracy(course, step, config),
        _course(course, picture),
        _recipe(config, printable(known.get("git_commit", "not known"))),
        _use(config, name or "FOLDER", warning),
        LIMITS,
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def licence_of(folder: Path) -> dict[str, str]:
    """A model's licence by the hub's keys (license, license_name, license_link): what the front matter of its README.md
    says, else that there is a file; empty if neither says anything."""
    from huggingface_hub import RepoCard

    found: dict[str, str] = {}
    try:
        text = reading.read(folder / CARD, MAX_BYTES).decode("utf-8-sig")
        if text.startswith("---"):
            said = RepoCard(text).data
            found = {key: value for key in KEYS if isinstance(value := said.get(key), str) and value.isprintable()}
    except Exception:  # no such file, or whatever yaml says of a front matter that is none
        found = {}
    if found.get("license"):
        return found
    file = next((name for name in LICENCES if (folder / name).is_file()), "")
    return {"license": "other", "license_name": "licence-of-the-base", "license_link": file} if file else {}


def evaluations(run: Path, step: int) -> Course:
    """The run's evaluations up to a step. Raises UserError."""
    found: dict[str, list[Row]] = {}
    for row in read_evals(run):
        if row["step"] <= step and isinstance(row.get("dataset"), str) and number(row.get("accuracy")) is not None:
            found.setdefault(printable(row["dataset"]), []).append(row)
    return found


def bare_names(config: Config) -> str:
    """The training data by their names alone: math+gsm8k."""
    return "+".join(told.partition(" (")[0] for told in recipe.datasets(config)[0])


def _metadata(course: Course, step: int, config: Config, licence: Mapping[str, str], title: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=recipe.hub_id(name) or name,
            dataset_name=name,
            metric_type="accuracy",
            metric_name=f"accuracy at step {step}, with its 95 % interval: {accuracy(row)}",
            metric_value=round(row["accuracy"], 4),
        )
        for name, rows in course.items()
        if (row := rows[-1])["step"] == step
    ]
    return ModelCardData(
        license=licence.get("license"),
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=recipe.base_of(config.model)[1],
        datasets=recipe.hub_ids(config) or None,
        tags=["r1v0", "grpo", "reinforcement-learning"],
        metrics=["accuracy"] if results else None,
        model_name=title if results else None,
        eval_results=results or None,
    ).to_yaml()


def _introduction(step: int, config: Config, base: str, version: str) -> str:
    parts = [
        f"A language model that learned by reinforcement (GRPO) from {base}: {step} of {config.steps} steps with r1v0 "
        f"{version}."
    ]
    if config.reward.control == "random":
        parts.append("**This is a control: its rewards were coin flips, whatever it answered.**")
    if config.lora.rank:
        parts.append("The weights have the LoRA adapter merged into them; `adapter/` holds it alone, in PEFT's format.")
    return "\n\n".join(parts)


def _base(config: Config, base: str, licence: Mapping[str, str]) -> str:
    kind = licence.get("license", "")
    if kind == "other":
        kind = " ".join(licence[key] for key in KEYS[1:] if key in licence) or kind
    told = f"{kind}, as its own files say" if kind else "not known: look at the base's page before you share this"
    about = ", the model of 330,000 parameters that r1v0 brings with it" if config.model == TINY else ""
    return f"## Base\n\n- base model: {base}{about}\n- its licence: {told}"


def _data(config: Config) -> str:
    trained, held_out = recipe.datasets(config)
    extra = [f"{recipe.bare(name)} (weight {weight})" for name, weight in config.reward.extra.items()]
    lines = [
        f"- trained on: {', '.join(trained)}",
        f"- rewarded by: {', '.join([recipe.bare(config.reward.name), *extra])}",
        f"- evaluated on: {', '.join(held_out) or 'nothing'}",
    ]
    return "## Data\n\n" + "\n".join(map(printable, lines))


def _accuracy(course: Course, step: int, config: Config) -> str:
    if not course:
        return "## Accuracy\n\nNot measured."
    heads = ["held-out problems", "answers", "before (step 0)", "after", "gain", "tokens an answer", "cut off"]
    cells = []
    for name, rows in course.items():
        first, last = rows[0], rows[-1]
        lengths = dict.fromkeys(amount(number(row.get("length"))) for row in (first, last))
        cells.append([
            name,
            f"{last.get('problems')} x {last.get('samples')}",
            accuracy(first) if first["step"] == 0 else "-",
            f"{accuracy(last)} (step {last['step']})" if last["step"] else "-",
            _gain(last),
            " to ".join(lengths),
            share(number(last.get("truncated_frac"))),
        ])  # fmt: skip
    limit = config.eval.max_new_tokens or config.sampling.max_new_tokens
    text = (
        f"In brackets: 95 % intervals. Answers are sampled at temperature {config.eval.temperature}, at most {limit} "
        "tokens each; the gain is paired by problem."
    )
    newest = max(rows[-1]["step"] for rows in course.values())
    if newest < step:
        text += f" These weights are of step {step}; the last evaluation before them was at step {newest}."
    return f"## Accuracy\n\n{_table(heads, cells)}\n\n{text}"


def _gain(row: Row) -> str:
    values = [number(row.get(key)) for key in ("gain", "gain_low", "gain_high")]
    gain, low, high = ("?" if value is None else f"{100 * value:+.0f}" for value in values)
    return "-" if gain == "?" else f"{gain} points [{low}, {high}]"


def _course(course: Course, picture: str) -> str:
    steps = sorted({row["step"] for rows in course.values() for row in rows})
    if len(steps) > ROWS:
        steps = [steps[round(place * (len(steps) - 1) / (ROWS - 1))] for place in range(ROWS)]
    at = {name: {row["step"]: row for row in rows} for name, rows in course.items()}
    cells = [[str(step), *(_point(at[name].get(step)) for name in course)] for step in steps]
    figure = f"![Accuracy, length and reward against the step, of the whole run]({picture})" if picture else ""
    table = _table(["step", *course], cells, 0) if len(steps) > 1 else ""
    return "\n\n".join(filter(None, ["## Course" if figure or table else "", figure, table]))


def _point(row: Row | None) -> str:
    return "-" if row is None else f"{accuracy(row)}, {amount(number(row.get('length')))} tokens"


def _recipe(config: Config, commit: str) -> str:
    changed = ", with changes beside it" if commit.endswith("+") else ""
    return (
        f"## Recipe\n\nSeed {config.seed}; commit of r1v0: {commit.rstrip('+')}{changed}. The main settings and all that differ from the "
        f"defaults, as a file for `r1v0 train --config FILE`:\n\n````toml\n{recipe.recipe(config)}\n````"
    )


def _use(config: Config, name: str, warning: str | None) -> str:
    """How to ask it, as a program that runs."""
    words, settings = words_of(config.prompt), config.sampling
    tokens = 'tokenizer(prompt, return_tensors="pt")'
    if config.prompt.template == CHAT:
        turn = '[{"role": "user", "content": prompt}]'
        tokens = (
            f'tokenizer.apply_chat_template({turn}, add_generation_prompt=True, return_tensors="pt", return_dict=True)'
        )
    code = f"""from transformers import AutoModelForCausalLM, AutoTokenizer

name = {_quoted(name)}
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name)
question = "..."
prompt = {_quoted(words.text)}.replace("{{question}}", question)
tokens = {tokens}
how = dict(do_sample=True, temperature={settings.temperature}, top_k=0, max_new_tokens={settings.max_new_tokens})
answer = model.generate(**tokens, **how)[0, tokens["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))"""
    parts = [f"## Use\n\nIt was trained on questions in these words:\n\n````python\n{code}\n````"]
    if words.stop:
        parts.append(f"An answer ends at the end token, or where one of these appears: {_code(words.stop)}.")
    programs = [f"`vllm serve {name}`"] if warning is None else []
    programs += [f"`lm_eval --model hf --model_args pretrained={name} --tasks gsm8k`"]
    parts.append(f"Other programs: {', '.join(programs)}.")
    return "\n\n".join(parts + ([f"Beware: {printable(warning)}."] if warning else []))


def _quoted(text: str) -> str:
    """A text as Python writes it."""
    return json.dumps(text, ensure_ascii=False)


def _code(texts: Sequence[str]) -> str:
    return ", ".join(f"`{_quoted(text)}`" for text in texts)


LIMITS = """## Limits

- One run of one seed: an interval is over problems and samples, and says nothing of what another seed would give.
- Only final answers were rewarded: a right one may stand after wrong reasoning.
- It was measured on the problems named above, and on nothing else. Whatever the base model may say that it should not,
  this one may say too."""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """As Markdown, whatever a dataset is called."""
    clean = [[cell.replace("|", "\\|") for cell in row] for row in (heads, *rows)]
    return markdown_table(clean[0], clean[1:], left)
