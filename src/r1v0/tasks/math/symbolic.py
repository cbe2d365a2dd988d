"""Are two answers the same mathematics? math-verify decides; this module guards it.

Decides, beside math-verify (gold first: its `verify` is not symmetric):
1. Both sides must parse. Two failures are never equal, and there is no verdict without an answer.
2. Text (names, "even", choices) is compared as text. The parser reads a bare word as a product of letters, so that
   `neve` would equal `even`.
3. Different units, or different bases of two subscripted numbers, are different answers. The parser drops both.
4. Numbers side by side are one number or none (`numbers`). The parser adds them.
5. `values` tells first: numbers whose values differ are different, and expressions in variables are the same where
   their values are. math-verify compares with an absolute bound, and simplifies for minutes.
6. Families for each integer (`families`) and sets of real numbers (`ranges`) are compared as sets. Other relations may
   not answer a set: a policy could repeat the problem's equations and be paid.
7. Answers are parsed as LaTeX only. math-verify's other route evaluates text through sympy's `parse_expr`.

Its timeouts are switched off (they need signals on the main thread): the caller must be killable. Called in the grading
processes; sympy is imported with the first call.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from r1v0.tasks.math import dots, families, latex, numbers, ranges, units, values
from r1v0.tasks.math.extract import MAX_ANSWER
from r1v0.tasks.math.forms import congruent, same_time
from r1v0.tasks.math.letters import alike, pairs, spread
from r1v0.tasks.math.values import EXACT_TOLERANCE, FLOAT_TOLERANCE

__all__ = ["EXACT_TOLERANCE", "FLOAT_TOLERANCE", "Comparison", "compare"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A verdict, why, and what the parser made of either side (sympy's notation; "" unless asked for)."""

    equal: bool
    why: str
    gold_form: str = ""
    answer_form: str = ""


def compare(gold: str, answer: str, forms: bool = False) -> Comparison:
    """Whether `answer` is `gold`, symbolically. Never raises on text; may take forever and eat all memory."""
    if not gold.strip() or not answer.strip():
        return Comparison(False, "empty gold" if not gold.strip() else "empty answer")
    if len(gold) > MAX_ANSWER or len(answer) > MAX_ANSWER:
        return Comparison(False, f"longer than {MAX_ANSWER} characters")
    gold, answer = latex.narrow(gold), latex.narrow(answer)
    exact, _, rounded = gold.replace("≈", r"\approx").rpartition(r"\approx")
    if re.search(r"\d", exact):
        first = compare(exact, answer, forms)
        return first if first.equal else compare(rounded, answer, forms)
    as_time = same_time(gold, answer) if ":" in gold else None
    if as_time is not None:
        return Comparison(as_time, "compared as times of the day")
    as_text = _compare_as_text(gold, answer)
    if as_text is not None:
        return as_text
    (gold_text, gold_unit), (answer_text, answer_unit) = _clean(gold), latex.clean(answer)
    if units.conflict(gold_unit, answer_unit):
        return Comparison(False, f"units differ: {gold_unit}, {answer_unit}")
    if gold_unit == answer_unit and congruent(gold_text, answer_text, gold_unit):
        return Comparison(True, f"congruent, {gold_unit}")
    gold_base, answer_base = latex.subscript(gold_text), latex.subscript(answer_text)
    if gold_base and answer_base and gold_base[1] != answer_base[1]:
        return Comparison(False, f"bases differ: {gold_base[1]}, {answer_base[1]}")
    one_gold, one_answer = [
        base[0] if base else numbers.joined(text) for base, text in ((gold_base, gold_text), (answer_base, answer_text))
    ]
    if one_gold is None or one_answer is None:
        which = "gold" if one_gold is None else "answer"
        return Comparison(False, f"the {which} cannot be parsed: numbers stand side by side in it")
    if not one_gold or not one_answer:
        return Comparison(False, "nothing left after normalisation")
    try:
        return _compare_cleaned(one_gold, one_answer, forms)
    except MemoryError:
        raise
    except Exception as error:  # sympy's, on what no test foresaw: not shown to be equal
        return Comparison(False, f"the comparison failed: {type(error).__name__}")


@lru_cache(maxsize=64)  # a group's completions share their gold answer
def _clean(gold: str) -> tuple[str, str]:
    return latex.clean(gold)


def _compare_as_text(gold: str, answer: str) -> Comparison | None:
    """The verdict where one side is text, else None."""
    gold_words, answer_words = latex.words(gold), latex.words(answer)
    if gold_words is None and answer_words is None:
        return Comparison(False, "other letters") if latex.anagrams(gold.strip(), answer.strip()) else None
    gold_key, answer_key = latex.word_key(gold), latex.word_key(answer)
    if latex.choice(gold) and len(gold_key) == 1:
        chosen = latex.choice(answer)
        answer_key = chosen.casefold() if chosen else answer_key
    equal = bool(gold_key) and gold_key == answer_key
    return Comparison(equal, "compared as text", gold_key, answer_key)


def _compare_cleaned(gold: str, answer: str, forms: bool) -> Comparison:
    """The verdict on two cleaned answers: by their numbers, as families or sets, or by the parser."""
    shown = [_show(_parse(text, True, True)) for text in (gold, answer)] if forms else []
    if dots.DOTS in gold or dots.DOTS in answer:
        going_on = _compare_going_on(gold, answer)
        if going_on is not None:
            return Comparison(going_on, "compared as lists that go on", *shown)
        gold, answer = dots.rounded(gold), dots.rounded(answer)
    as_numbers = numbers.equal(gold, answer)
    if as_numbers is not None:
        return Comparison(as_numbers, "equal symbolically" if as_numbers else "not equal symbolically", *shown)
    answer = alike(gold, answer)
    gold, answer = spread(gold), spread(answer)
    ways = pairs(gold, answer)
    if ways is not None:
        right = any(all(_compare_cleaned(*pair, False).equal for pair in way) for way in ways)
        return Comparison(right, "compared by name", *shown)
    as_families = _compare_families(gold, answer)
    if as_families is not None:
        return Comparison(as_families, "compared as families of values, one for each integer", *shown)
    if ranges.is_range(gold) or ranges.is_range(answer):
        sets = [ranges.as_set(text, lambda side: _parse(side, True, True)) for text in (gold, answer)]
        if sets[0] is not None and sets[1] is not None:
            (gold_set, gold_name), (answer_set, answer_name) = sets[0], sets[1]
            named_apart = bool(gold_name and answer_name and gold_name != answer_name)
            return Comparison(not named_apart and ranges.same(gold_set, answer_set), "compared as sets", *shown)
    return _compare_parsed(gold, answer, forms)


def _compare_going_on(gold: str, answer: str) -> bool | None:
    """The verdict on dots: on two lists that go on, and where one side has more dots; else None."""
    if families.split(gold) or families.split(answer):
        return None
    shown = dots.endless(gold, answer)
    if shown is not None:
        return bool(shown) and all(
            left == right or (bool(left and right) and _compare_cleaned(left, right, False).equal)
            for left, right in shown
        )
    return False if dots.apart(dots.rounded(gold), dots.rounded(answer)) else None


def _compare_families(gold_text: str, answer_text: str) -> bool | None:
    """The verdict where an answer states what runs over the integers; None where none does."""
    from sympy import Symbol

    gold, answer = families.split(gold_text), families.split(answer_text)
    if gold is None and answer is None:
        return None
    if gold is None and answer is not None:
        gold = families.bare(gold_text, answer)
    elif gold is not None and answer is None:
        answer = families.bare(answer_text, gold)
    if gold is None or answer is None or gold.domain != answer.domain:
        return False
    sides = [(family, _parse(family.body, True, True)) for family in (gold, answer)]
    if any(parsed is None for _, parsed in sides):
        return False
    runs = Symbol("k", real=True)
    found = []
    for family, parsed in sides:
        own = [symbol for symbol in parsed.free_symbols if str(symbol.name) == family.letter.lower()]
        found.append(parsed.subs(dict.fromkeys(own, runs)))
    same = families.same(values.parts(found[0]), runs, values.parts(found[1]), runs) if not gold.domain else None
    return same if same is not None else _verify(found[0], found[1]) and not values.differ(found[0], found[1])


def _compare_parsed(gold_text: str, answer_text: str, forms: bool) -> Comparison:
    from math_verify.grader import should_treat_as_complex

    is_real = not (should_treat_as_complex(gold_text) or should_treat_as_complex(answer_text))
    one_case = not (_both_cases(gold_text) or _both_cases(answer_text))
    gold, answer = _parse(gold_text, is_real, one_case), _parse(answer_text, is_real, one_case)
    shown = (_show(gold), _show(answer)) if forms else ("", "")
    if gold is None or answer is None:
        return Comparison(False, f"the {'gold' if gold is None else 'answer'} cannot be parsed", *shown)
    gold, answer = _opaque(gold), _opaque(answer)
    if _is_no_value(gold, answer):
        return Comparison(False, "the answer is an equation that states no value", *shown)
    function = _same_function(gold, answer)
    if function is not None:
        return Comparison(function, "the same values at every point tried" if function else "the values differ", *shown)
    if not _verify(gold, answer):
        return Comparison(False, "not equal symbolically", *shown)
    if values.differ(gold, answer):
        return Comparison(False, "equal to math-verify, but the values differ", *shown)
    return Comparison(True, "equal symbolically", *shown)


def _same_function(gold: Any, answer: Any) -> bool | None:
    """What `values` says of two expressions, or of two equations with one left side; None is no opinion."""
    from sympy import Eq, Expr

    if isinstance(gold, Eq) and isinstance(answer, Eq) and gold.lhs == answer.lhs:
        gold, answer = gold.rhs, answer.rhs
    if not isinstance(gold, Expr) or not isinstance(answer, Expr):
        return None
    return values.same_function(gold, answer)


def _opaque(parsed: Any) -> Any:
    """With derivatives as names: of a letter that is not a function of t, d\\omega/dt would be 0 and could have any
    factor."""
    from sympy import Derivative, Symbol

    if not hasattr(parsed, "has") or not parsed.has(Derivative):
        return parsed
    return parsed.replace(lambda part: isinstance(part, Derivative), lambda part: Symbol(str(part), real=True))


def _both_cases(text: str) -> bool:
    """A letter is there as capital and small: R - r. The parser makes all letters small, which is right for 3R^2
    only."""
    letters = set(re.sub(r"\\[a-zA-Z]+", "", text))
    return any(letter.swapcase() in letters for letter in letters if letter.isalpha() and letter.swapcase() != letter)


@lru_cache(maxsize=64)  # a group's completions share their gold answer
def _parse(text: str, is_real: bool, one_case: bool) -> Any:
    """A sympy object, or None. Any exception of the parser is "cannot be parsed"; memory errors are the caller's."""
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
    from math_verify.parser import NormalizationConfig, latex2sympy

    normalization = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=False, nits=False, boxed="none"
    )
    try:
        return latex2sympy(
            text,
            is_real=is_real,
            normalization_config=normalization,
            conversion_config=ConversionConfig(lowercase_symbols=one_case),
        )
    except MemoryError:
        raise
    except Exception:
        return None


def _show(parsed: Any) -> str:
    return "-" if parsed is None else " ".join(str(parsed).split())[:500]


def _verify(gold: Any, answer: Any) -> bool:
    """math-verify's verdict; tried again with the letter i as the imaginary unit."""
    import logging

    from math_verify import verify
    from sympy import I

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timeouts are off
    if verify(gold, answer, timeout_seconds=None, allow_set_relation_comp=_is_range(answer)):
        return True
    symbols = getattr(gold, "free_symbols", set()) | getattr(answer, "free_symbols", set())
    imaginary = {symbol: I for symbol in symbols if symbol.name == "i"}
    return bool(imaginary) and bool(verify(gold.subs(imaginary), answer.subs(imaginary), timeout_seconds=None))


def _is_no_value(gold: Any, answer: Any) -> bool:
    """An equation that states no value: 4 = 5, of which math-verify would take the 5, and 2x - 4 = 0, of which it would
    take the 0 (x = 0 does state one)."""
    from latex2sympy2_extended import is_expr_of_only_symbols
    from sympy import Eq

    if not isinstance(answer, Eq):
        return False
    if not answer.free_symbols:
        return values.differ(answer.lhs.doit(), answer.rhs.doit())
    return gold == 0 and answer.rhs == 0 and not is_expr_of_only_symbols(answer.lhs)


def _is_range(parsed: Any) -> bool:
    """x > 2, or -2 <= x <= 7: inequalities between one variable and numbers."""
    from sympy import And, Ge, Gt, Le, Lt

    sides = parsed.args if isinstance(parsed, And) else (parsed,)
    return len(getattr(parsed, "free_symbols", ())) == 1 and all(
        isinstance(side, Ge | Gt | Le | Lt)
        and (side.lhs.is_Symbol or side.rhs.is_Symbol)
        and len(side.free_symbols) == 1
        and (side.lhs.is_number or side.rhs.is_number)
        for side in sides
    )  # fmt: skip
