"""The rewards that compare a final answer with the gold answer, and those for its form.

Decides: an answer that is missing, empty or cut off is wrong. `math` accepts what is mathematically equal; `strict`,
plain equality after `latex.strict_form`, is recorded beside it. `gsm8k` compares numbers. The format rewards are
R1-Zero's (arXiv 2501.12948, sec. 2.2.2), made exact: each tag once, in order, nothing around them.
"""

import re
from dataclasses import dataclass
from decimal import Decimal

from r1v0.tasks.math import extract, latex
from r1v0.types import Problem, Score

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Question:
    """What is left to decide: is `answer` the same mathematics as `gold`? Both are bounded in length."""

    gold: str
    answer: str

    def verdict(self, equal: bool) -> Score:
        """The Score, once it is known."""
        return Score(reward=float(equal), correct=equal, extracted=self.answer)


def states(reward: str, text: str) -> bool:
    """Whether the text states an answer where the reward looks for it: a box, answer tags, for gsm8k also ####."""
    return bool(extract.answer(text) if reward == "math" else extract.gsm8k(text))


def as_stated(reward: str, text: str) -> str:
    """The text; with its last value put into marks where it states no answer (`reward.extraction = "last"`)."""
    if states(reward, text):
        return text
    found = extract.last(text)
    if found is None:
        return text
    return f"<answer>{found}</answer>" if reward == "math" else f"#### {found}"


def math(problem: Problem, text: str, finished: bool) -> Score:
    """1 if the last boxed (or tagged) answer equals `problem.answer`. May take forever on hostile answers:
    `isolated`."""
    question = math_quick(problem, text, finished)
    if isinstance(question, Score):
        return question
    from r1v0.tasks.math.symbolic import compare

    return question.verdict(compare(question.gold, question.answer).equal)


def math_quick(problem: Problem, text: str, finished: bool) -> Score | Question:
    """`math` without symbolic mathematics: the Score where there is no answer, or it is the gold one to the letter,
    or both are plain integers. That is most answers of a policy."""
    answer = extract.answer(text)
    gold = math_gold(problem.answer)
    if not finished or not answer or not gold or len(gold) > extract.MAX_ANSWER:
        return Score(reward=0.0, correct=False, extracted=answer)
    form = latex.strict_form(answer)
    if form and form == latex.strict_form(gold):
        return Score(reward=1.0, correct=True, strict=True, extracted=answer)
    question = Question(gold, answer)
    if _INTEGER.fullmatch(answer) and _INTEGER.fullmatch(gold):
        return question.verdict(int(answer) == int(gold))
    return question


def math_gold(gold: str) -> str:
    """A gold answer without what stands around it: data give it bare, boxed, or at the end of a solution."""
    answer = extract.answer(gold)
    return (gold if answer is None else answer).strip()


def gsm8k(problem: Problem, text: str, finished: bool) -> Score:
    """1 if the answer (`extract.gsm8k`) is the gold number; 1,000.0 is 1000."""
    answer = extract.gsm8k(text)
    gold = extract.gsm8k(problem.answer) or extract.number(problem.answer[: extract.MAX_ANSWER])
    if not finished or answer is None or gold is None:
        return Score(reward=0.0, correct=False, extracted=answer)
    correct = Decimal(answer) == Decimal(gold)
    return Score(reward=float(correct), correct=correct, strict=answer == gold, extracted=answer)


def format_tags(problem: Problem, text: str, finished: bool) -> Score:
    """1 if the completion is `<think> reasoning </think> <answer> answer </answer>` and nothing else. The opening
    tag may be missing, because some templates put it at the end of the prompt."""
    body = text.strip().removeprefix("<think>")
    thought, _, rest = body.partition("</think>")
    rest = rest.strip()
    answer = rest.removeprefix("<answer>").removesuffix("</answer>")
    once = "<think>" not in body and all(body.count(tag) == 1 for tag in ("</think>", "<answer>", "</answer>"))
    around = rest.startswith("<answer>") and rest.endswith("</answer>")
    good = finished and once and around and bool(thought.strip()) and bool(answer.strip())
    return Score(reward=float(good), correct=good)


def format_box(problem: Problem, text: str, finished: bool) -> Score:
    """1 if the completion has exactly one box, closed and not empty, in its last line."""
    boxes = text.count("\\boxed") + text.count("\\fbox")
    last_line = text.rstrip().rpartition("\n")[2]
    good = finished and boxes == 1 and bool(extract.boxed(last_line))
    return Score(reward=float(good), correct=good)
