"""What is fuzzed: each target takes any bytes, raises where r1v0 crashes, accepts what is wrong or loses something, and
returns whether r1v0 accepted the input, so that a run shows that it reached both sides. benchmarks/fuzz.py runs a
million inputs, tests/security/test_fuzz.py hundreds.

Decides: an oracle shares no code with what it judges: exact fractions and Python's own parser for countdown, plain
fractions for numbers, `json` and `tomllib` for files. UserError is a verdict, anything else that is raised is a defect.
"""

import ast
import dataclasses
import gzip
import json
import re
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

from r1v0 import config
from r1v0.base.errors import UserError
from r1v0.jobs import eval
from r1v0.models.families import FAMILIES, parse_config
from r1v0.report import series
from r1v0.rollouts import evaluate
from r1v0.runs import records, runlog, written
from r1v0.tasks import problems
from r1v0.tasks.countdown import reward
from r1v0.tasks.grading import verify
from r1v0.tasks.math import answers, extract, gold, latex
from r1v0.tasks.reading import json_rows
from r1v0.types import Problem, Score
from tests import fuzz_corpus as corpus

SEPARATOR = "\x1e"
"""Where one input holds several texts."""


@dataclass(frozen=True)
class Target:
    """`check` of one input; `seeds` are real examples, `tokens` what inputs are also built of. `what` says what is
    shown."""

    check: Callable[[bytes], bool]
    seeds: list[str]
    tokens: list[str]
    what: str
    frame: str = ""
    """Where words are most often put: in a box, or in braces."""


def text_of(data: bytes, target: Target) -> bytes:
    """The input that a fuzzer's bytes stand for: themselves after an even first byte, words after an odd one, each
    second time in the target's frame."""
    if not data or not data[0] & 1:
        return data[1:]
    said = "".join(target.tokens[code % len(target.tokens)] for code in data[1:])
    framed = target.frame.replace("...", said) if target.frame and data[0] & 2 else said
    return framed.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    """Bytes as text; what is no UTF-8 becomes lone surrogates, which no reader may stumble over."""
    return data.decode("utf-8", "surrogateescape")


def _refused(error: UserError) -> bool:
    assert str(error), "an error without a message"
    assert str(error).isprintable(), f"not one printable line: {str(error)!r}"
    return False


# Countdown


def exact(expression: str) -> tuple[Fraction, list[int], bool] | None:
    """Value, numbers used, and whether all results on the way are in 1..60; None if it is not the arithmetic
    allowed."""
    text = re.sub(r"(?<![0-9])0+(?=[0-9])", "", " ".join(expression.split()))
    if not re.fullmatch(r"[-+*() 0-9]+", text):
        return None
    try:
        tree = ast.parse(text, mode="eval")
        return _exact(tree.body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _exact(node: ast.expr) -> tuple[Fraction, list[int], bool]:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return Fraction(node.value), [node.value], True
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Add | ast.Sub | ast.Mult):
        raise ValueError
    (a, left, fine), (b, right, good) = _exact(node.left), _exact(node.right)
    value = a + b if isinstance(node.op, ast.Add) else a - b if isinstance(node.op, ast.Sub) else a * b
    return value, left + right, fine and good and 1 <= value <= 60


def final_box(text: str) -> str | None:
    """What stands in the box that ends the text."""
    text = text.rstrip()
    start = text.rfind("\\boxed{")
    inside = text[start + 7 : -1]
    return inside if start >= 0 and text.endswith("}") and "}" not in inside and len(text) > start + 7 else None


def check_countdown(data: bytes) -> bool:
    text, accepted = _text(data), False
    for target, numbers in corpus.COUNTDOWN:
        problem = Problem("f", "", f"{target} from {' '.join(map(str, numbers))}", "countdown")
        score = reward.countdown(problem, text, True)
        inside = final_box(text)
        found = exact(inside) if inside is not None else None
        right = found is not None and found[0] == target and Counter(found[1]) == Counter(numbers)
        if score.correct:
            assert right, f"wrong acceptance: {inside!r} for {problem.answer}"
            assert found is not None
            assert score.strict == found[2], f"strict is wrong: {inside!r}"
        elif right and inside is not None and len(inside) <= 200 and not re.search("[0-9]{7}", inside):
            depths = [inside[:i].count("(") - inside[:i].count(")") for i in range(len(inside) + 1)]
            assert max(depths) > reward.MAX_DEPTH, f"wrong refusal: {inside!r} for {problem.answer}"
        assert score.reward == float(score.correct)
        assert not reward.countdown(problem, text, False).correct, "cut-off text was accepted"
        accepted = accepted or score.correct
    return accepted


# Answers


def plain_value(text: str) -> Fraction | None:
    """The value of a number that is written plainly: 12, -3.50, 1/2, \\frac{1}{2}. None is no opinion: a printed
    dollar sign before a letter (\\$frac) is no command."""
    if re.search(r"\\\$[a-zA-Z]", text):
        return None
    text = re.sub(r"\s|\$|\\left|\\right|\\!", "", text)
    if re.fullmatch(r"[-+]?[0-9]{1,40}(\.[0-9]{1,40})?", text):
        return Fraction(text)
    ratio = re.fullmatch(r"([-+]?)(?:\\[dt]?frac\{([0-9]{1,20})\}\{([0-9]{1,20})\}|([0-9]{1,20})/([0-9]{1,20}))", text)
    if ratio is None:
        return None
    over, under = int(ratio[2] or ratio[4]), int(ratio[3] or ratio[5])
    return (-1 if ratio[1] == "-" else 1) * Fraction(over, under) if under else None


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)


def check_extract(data: bytes) -> bool:
    """An answer is made of the text's characters (several boxes are joined by commas), of bounded length; no reward
    is paid where the gold answer is not in the text."""
    text = _text(data)
    for found in (extract.answer(text), extract.boxed(text), extract.tagged(text), extract.last(text)):
        parts = [] if found is None else found.split(", ")
        assert all(part in text or set("*_`") & set(text) for part in parts)
        assert found is None or (
            set(found) <= {*text, ","} | {" "} and len(found) <= extract.MAX_ANSWER and found == found.strip()
        )
    assert extract.answer(text) is None or "\\boxed" in text or "\\fbox" in text or "</answer>" in text
    for answer in corpus.GOLD:
        problem = Problem("f", "", answer, "math")
        for name, function in (("math", answers.math_quick), ("gsm8k", answers.gsm8k)):
            score = function(problem, text, True)
            if isinstance(score, Score) and score.correct:
                there = _digits(answer).strip("0") in _digits(_ascii_digits(text))
                assert there, f"wrong acceptance: {name} paid {answer!r} for {text!r}"
                assert score.extracted is not None
            if isinstance(score, Score) and not score.correct:
                continue
            cut = function(problem, text, False)
            assert isinstance(cut, Score), f"{name} asks about cut-off text"
            assert not cut.correct, f"{name} accepted cut-off text"
    for form in (answers.format_tags, answers.format_box):
        assert not form(problem, text, False).correct
    for take in (gold.plain, gold.number, gold.boxed, gold.hashes, gold.answer_is, gold.marked, gold.either):
        found = take(text)
        assert found is None or isinstance(found, str)
    gold.level(text)
    problems.normal(text)
    answer = text[: extract.MAX_ANSWER]
    for normalise in (latex.strict_form, latex.clean, latex.words, latex.word_key, latex.choice, latex.subscript):
        normalise(answer)
    return extract.answer(text) is not None


def _ascii_digits(text: str) -> str:
    """Digits of other scripts as 0-9: they are numbers too."""
    return "".join(str(int(c)) if c.isdecimal() else c for c in text)


def check_numbers(data: bytes) -> bool:
    """Two plainly written numbers are judged equal only if they are (the quick paths: strict match, integers,
    GSM8K)."""
    gold_text, _, answer = _text(data).partition(SEPARATOR)
    left, right = plain_value(gold_text), plain_value(answer)
    problem = Problem("f", "", gold_text, "math")
    score = answers.math_quick(problem, f"\\boxed{{{answer}}}", True)
    if isinstance(score, Score) and score.correct:
        assert left is None or right is None or left == right, f"wrong acceptance: {answer!r} for {gold_text!r}"
    if left is None or right is None or len(answer) > 150 or re.search(r"\s", gold_text.strip() + answer.strip()):
        return False
    if "\\" in gold_text:  # GSM8K's gold answers are bare numbers
        return False
    paid = answers.gsm8k(problem, f"#### {answer}", True).correct
    assert not paid or left == right, f"wrong acceptance: gsm8k paid {answer!r} for {gold_text!r}"
    if re.fullmatch(r"[-+.0-9]*", gold_text + answer):
        assert paid == (left == right), f"gsm8k: wrong refusal of {answer!r} for {gold_text!r}"
    return paid


def check_symbolic(data: bytes) -> bool:
    """`symbolic.compare` of plainly written numbers: equal exactly if they are (decimals: to 1e-5, relative)."""
    from r1v0.tasks.math.symbolic import compare

    gold_text, _, answer = _text(data).partition(SEPARATOR)
    left, right = plain_value(gold_text), plain_value(answer)
    if left is None or right is None or not (gold_text + answer).isprintable():
        return False
    equal = compare(gold_text, answer).equal
    tolerance = Fraction(2, 100_000) if "." in gold_text + answer else Fraction(1, 10**9)
    assert not equal or abs(left - right) <= tolerance * max(abs(left), abs(right)), f"equal: {gold_text!r} {answer!r}"
    assert equal or left != right, f"not equal: {gold_text!r} {answer!r}"
    return equal


# Settings


def check_toml(data: bytes) -> bool:
    """A config that is accepted reads back equal; anything else is refused in one line."""
    try:
        found = config.parse(_text(data), "FILE")
    except UserError as error:
        return _refused(error)
    return _reads_back(found)


def check_sets(data: bytes) -> bool:
    try:
        found = config.resolve(sets=_text(data).split(SEPARATOR))
    except UserError as error:
        return _refused(error)
    return _reads_back(found)


def _reads_back(found: config.Config) -> bool:
    written = config.to_toml(found)
    assert config.parse(written, "again") == found, "accepted settings do not read back equal"
    assert tomllib.loads(written) == dataclasses.asdict(found), "other values in the TOML"
    return True


# Files


@cache
def _holder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="r1v0-fuzz-")  # gone with the process


def _folder() -> Path:
    return Path(_holder().name)


def check_data_rows(data: bytes) -> bool:
    """Every line, or element, is a row or a reason; cells are what `json` reads."""
    path = _folder() / "rows.jsonl"
    path.write_bytes(data)
    wanted = {"problem", "answer"}
    try:
        rows = json_rows.read(path, wanted)
    except UserError as error:
        return _refused(error)
    size = len(rows.lines)
    assert all(len(cells) == size for cells in rows.cells.values()), "columns of different lengths"
    assert set(rows.cells) <= wanted & set(rows.columns)
    if json_rows.layout(path) == "array":
        return True
    lines = [line for line in data.split(b"\n") if line.strip()]
    assert len(lines) == size, "a row is lost"
    for row, line in enumerate(lines):
        try:
            held = json.loads(line)
        except (ValueError, RecursionError):
            assert row in rows.broken, "what is no JSON was taken"
            continue
        for name, cells in rows.cells.items():
            value = held.get(name) if isinstance(held, dict) else None
            if isinstance(value, str) and value.isascii() and row not in rows.broken:
                assert cells[row] == (value.strip() or None), "a cell is not what the file says"
    return bool(rows.cells)


def check_run_rows(data: bytes) -> bool:
    """Rows are objects with a whole-number step, written and read back equal; figures can be drawn of any of them."""
    metrics, _, evals = data.partition(SEPARATOR.encode())
    run = _folder() / "run"
    run.mkdir(exist_ok=True)
    (run / runlog.METRICS).write_bytes(metrics)
    (run / runlog.EVALS).write_bytes(evals)
    try:
        found = series.Run(records.read_metrics(run), records.read_evals(run))
    except UserError as error:
        return _refused(error)
    assert all(type(row["step"]) is int for row in found.metrics + found.evals)
    (run / runlog.METRICS).write_bytes(b"".join(map(runlog.json_line, found.metrics)))
    assert records.read_metrics(run) == [json.loads(runlog.json_line(row)) for row in found.metrics]
    series.load({"fuzz": [run]})
    for key in {key for row in found.metrics for key in row}:
        assert all(isinstance(value, float | int) for value in found.train(key).values())
    for name in series.datasets([series.Entry("fuzz", [found])]):
        found.held_out(name, "accuracy")
    return bool(found.metrics or found.evals)


def check_answers(data: bytes) -> bool:
    """Answers of a run folder and of an evaluation's: whatever is accepted can be summarised and compared."""
    run, out = _folder() / "answers-run", _folder() / "evaluation"
    (run / runlog.ANSWERS).mkdir(parents=True, exist_ok=True)
    out.mkdir(exist_ok=True)
    path = run / runlog.ANSWERS / "step-00000.jsonl.gz"
    path.write_bytes(data if data.startswith(b"\x1f\x8b") else gzip.compress(data, 1))
    (out / eval.PLAN).write_text("{}")
    (out / written.EVALUATION_ANSWERS).write_bytes(data)
    accepted = False
    readers: list[Callable[[], list[written.Answer]]] = [
        lambda: written.answers_at(run, 0),
        lambda: written.evaluation_answers(out),
    ]
    for read in readers:
        try:
            found = read()
        except UserError as error:
            _refused(error)
            continue
        for name in {answer.dataset for answer in found}:
            own = [answer for answer in found if answer.dataset == name]
            evaluate.gain(own, own)
            if len({len(group) for group in written.by_problem(own).values()}) == 1:
                evaluate.summarise(name, own)
        accepted = accepted or bool(found)
    return accepted


def check_verify_lines(data: bytes) -> bool:
    accepted = False
    for line in _text(data).split("\n"):
        try:
            gold_text, answer = verify._pair(line, "FILE, line 1")
        except UserError as error:
            _refused(error)
        else:
            assert gold_text.strip()
            assert isinstance(answer, str)
            accepted = True
    return accepted


def check_model_config(data: bytes) -> bool:
    """A config.json is accepted with sound numbers, or refused in one line."""
    try:
        raw: Any = json.loads(data)
    except (ValueError, RecursionError):
        return False
    if not isinstance(raw, dict):
        return False
    try:
        found = parse_config(raw, "FILE")
    except UserError as error:
        return _refused(error)
    assert raw["model_type"] in FAMILIES
    assert all(size > 0 for size in (found.vocab, found.hidden, found.layers, found.head_dim, found.max_positions))
    assert 0 < found.rope_theta < float("inf")
    assert found.head_dim % 2 == 0
    return True


TARGETS = {
    "countdown": Target(check_countdown, corpus.COUNTDOWN_TEXTS, corpus.COUNTDOWN_TOKENS,
        "the countdown parser: right exactly if an independent checker with exact fractions says so", "\\boxed{...}"),
    "extraction": Target(check_extract, corpus.ANSWER_TEXTS, corpus.ANSWER_TOKENS,
        "answer extraction, gold answers, LaTeX forms: nothing is paid where the gold answer is not in the " "text", "so \\boxed{...}"),
    "numbers": Target(check_numbers, corpus.NUMBER_PAIRS, corpus.NUMBER_TOKENS,
        "strict, integer and GSM8K equality: never of two different plain numbers"),
    "symbolic": Target(check_symbolic, corpus.NUMBER_PAIRS, corpus.NUMBER_TOKENS,
        "symbolic equality of plain numbers: exactly if exact fractions are equal"),
    "config": Target(check_toml, corpus.TOML, corpus.TOML_TOKENS, "TOML settings: accepted ones read back equal"),
    "set": Target(check_sets, corpus.SETS, corpus.SET_TOKENS, "--set: accepted ones read back equal"),
    "data": Target(check_data_rows, corpus.DATA_ROWS, corpus.JSON_TOKENS, "rows of data: none lost, none bent"),
    "run": Target(check_run_rows, corpus.RUN_ROWS, corpus.RUN_TOKENS, "metrics and evaluations of a run folder"),
    "answers": Target(check_answers, corpus.ANSWER_ROWS, corpus.ANSWER_ROW_TOKENS,
        "answers of a run and of an evaluation: what is accepted can be summarised"),
    "verify": Target(check_verify_lines, corpus.VERIFY_ROWS, corpus.JSON_TOKENS, "lines of verify --batch"),
    "model": Target(check_model_config, corpus.MODEL_CONFIGS, corpus.MODEL_TOKENS, "a model's config.json"),
}  # fmt: skip
