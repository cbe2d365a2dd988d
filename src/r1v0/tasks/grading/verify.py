"""`r1v0 verify`: explain one verdict, or grade a file.

Decides: here an answer may be given bare. A text in which the reward finds no answer (no box, no tags; for gsm8k no
marks either) is taken as the answer itself, and a line tells what training would see in it. Otherwise verdicts are
those of training: the same rewards, processes and deadlines.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from r1v0.base.command import typed
from r1v0.base.errors import UserError
from r1v0.base.shown import shown
from r1v0.config import RewardConfig
from r1v0.tasks.grading.pool import Verifier
from r1v0.tasks.math import extract, latex
from r1v0.tasks.math.answers import math_gold
from r1v0.types import Problem, Score

MAX_LINE = 16 << 20
CHUNK = 2000
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Summary:
    """What was graded, in lines, and the seconds of grading added up."""

    lines: int = 0
    equal: int = 0
    strict: int = 0
    disagreements: int = 0
    timeouts: int = 0
    crashes: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        share = f"{self.equal / self.lines:.1%}" if self.lines else "none"
        return (
            f"{self.lines} lines, {self.equal} equal ({share}), {self.strict} of them by strict match, "
            f"{self.timeouts} timeouts, {self.crashes} crashes, {self.seconds:.1f} s of grading"
        )


MATH = RewardConfig(name="math")


def explain(gold: str, answer: str, config: RewardConfig = MATH) -> list[str]:
    """The lines of `judge`."""
    return judge(gold, answer, config)[0]


def judge(gold: str, answer: str, config: RewardConfig = MATH) -> tuple[list[str], bool]:
    """Lines that tell what was extracted, both verdicts, why, and the seconds; and whether the answer is right. Raises
    UserError for an unknown reward or an empty gold answer."""
    reward = config.name
    if not gold.strip():
        example = typed("verify", r"\frac{1}{2}", "0.5")
        raise UserError(f"the gold answer is empty: expected the right answer, for example {example}")
    with Verifier(replace(config, workers=1)) as verifier:
        verifier.submit(0, Problem("", "", gold, ""), completion(answer, reward), True)
        score, seconds = verifier.collect_timed()[0]
        lines = [
            f"gold      {_shown(math_gold(gold) if reward == 'math' else gold)}",
            f"answer    {_shown(score.extracted)} ({_found(answer, reward)})",
            f"strict    {'equal' if score.strict else 'not equal'}",
        ]
        if score.failure:
            lines.append(f"symbolic  {score.failure} after {seconds:.2f} s")
        elif reward == "math":
            lines += _symbolic_lines(verifier, math_gold(gold), score.extracted)
        training = _training_lines(verifier, gold, answer, reward)
    verdict = f"no verdict: {score.failure}" if score.failure else "correct" if score.correct else "wrong"
    pays = "" if training else f", reward {score.reward:g}"
    return [*lines, f"verdict   {verdict}{pays}, {seconds:.3f} s", *training], score.correct


def verify_batch(path_in: Path, out: TextIO, config: RewardConfig) -> Summary:
    """Grade a JSONL file of {"gold", "completion"}; write {"correct", "strict", "extracted", "seconds"} a line, in the same
    order, with "failure" where there is one. The whole file is checked before anything is written.

    Raises UserError for a file that cannot be read and for a malformed line, with its place."""
    for _ in _pairs(path_in):
        pass
    summary = Summary()
    pairs = _pairs(path_in)
    with Verifier(config) as verifier:
        while chunk := list(islice(pairs, CHUNK)):
            for job, (gold, pred) in enumerate(chunk):
                verifier.submit(job, Problem(str(job), "", gold, ""), completion(pred, config.name), True)
            verdicts = verifier.collect_timed()
            for job in range(len(chunk)):
                score, seconds = verdicts[job]
                out.write(json.dumps(_line(score, seconds)) + "\n")
                summary = _counted(summary, score, seconds)
    return summary


def _training_lines(verifier: Verifier, gold: str, answer: str, reward: str) -> list[str]:
    """What a run would pay for a text that states no answer, which is graded here as an answer given bare."""
    if completion(answer, reward) == answer:
        return []
    verifier.submit(0, Problem("", "", gold, ""), answer, True, both=True)
    score = verifier.collect()[0]
    marks = "no \\boxed{...} and no <answer> tags" + (" and no ####" if reward == "gsm8k" else "")
    last = f'{float(score.correct_last or 0):g} with reward.extraction = "last"'
    return [f"training  reward 0 for this text: {marks}; {last}"]


def completion(text: str, reward: str) -> str:
    """A text in which the reward will find its answer: itself, or with an answer given bare put into marks."""
    if reward == "math" and extract.answer(text) is None:
        return f"<answer>{text}</answer>"
    if reward == "gsm8k" and extract.gsm8k(text) is None:
        return f"#### {text}"
    return text


def _found(text: str, reward: str) -> str:
    if reward not in ("math", "gsm8k"):
        return "as the reward found it"
    return "the whole text" if completion(text, reward) != text else "found in the text"


def _symbolic_lines(verifier: Verifier, gold: str, answer: str | None) -> list[str]:
    if not answer:
        return ["symbolic  not asked: there is no answer"]
    result, failure, seconds = verifier.compare(gold, answer)
    if failure:
        return [f"symbolic  {failure} after {seconds:.2f} s"]
    return [
        f"symbolic  {'equal' if result['equal'] else 'not equal'}: {result['why']}, {seconds:.3f} s",
        f"cleaned   {_shown(latex.clean(gold)[0])} | {_shown(latex.clean(answer)[0])}",
        f"parsed    {_shown(result['gold_form'])} | {_shown(result['answer_form'])}",
    ]


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    """The (gold, pred) of each line."""
    try:
        with path.open(encoding="utf-8") as lines:
            for number in range(1, 1 << 62):
                line = lines.readline(MAX_LINE + 1)
                if not line:
                    return
                yield _pair(line, f"{path}, line {number}")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}: give a JSONL file with lines {_EXAMPLE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}): give a UTF-8 JSONL file") from None


_EXAMPLE = '{"gold": "1/2", "completion": "0.5"}'


def _pair(line: str, place: str) -> tuple[str, str]:
    if len(line) > MAX_LINE:
        raise UserError(f"{place} is longer than {MAX_LINE >> 20} MiB: expected {_EXAMPLE}")
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(f"{place} is not JSON: expected {_EXAMPLE}") from None
    if not isinstance(row, dict):
        raise UserError(f"{place} is a JSON {type(row).__name__}: expected an object, {_EXAMPLE}")
    for key in ("gold", "completion"):
        if not isinstance(row.get(key), str):
            given = f"'{key}' is {json.dumps(row[key])[:50]}" if key in row else f"has no '{key}'"
            raise UserError(f"{place}: {given}: expected a text, as in {_EXAMPLE}")
    if not row["gold"].strip():
        raise UserError(f"{place}: 'gold' is empty: expected the right answer")
    return row["gold"], row["completion"]


def _line(score: Score, seconds: float) -> dict[str, Any]:
    line = {
        "correct": score.correct,
        "strict": score.strict,
        "extracted": score.extracted,
        "seconds": round(seconds, 6),
    }
    return {**line, "failure": score.failure} if score.failure else line


def _counted(summary: Summary, score: Score, seconds: float) -> Summary:
    return Summary(
        lines=summary.lines + 1,
        equal=summary.equal + score.correct,
        strict=summary.strict + score.strict,
        disagreements=summary.disagreements + (score.correct and not score.strict),
        timeouts=summary.timeouts + (score.failure == "timeout"),
        crashes=summary.crashes + (score.failure == "crash"),
        seconds=summary.seconds + seconds,
    )


def _shown(text: str | None) -> str:
    """A text that any terminal can print, cut to a line."""
    if text is None:
        return "none"
    if not text:
        return "empty"
    cut = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"
    return shown(cut)
