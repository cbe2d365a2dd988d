"""Are two answers the same mathematics? math-verify decides; this module guards it.

Decides, beside math-verify (gold first: its `verify` is not symmetric):
1. Both sides must parse. Two failures are never equal, and there is no verdict without an answer.
2. Text (names, "even", choices) is compared as text. The parser reads a bare word as a product of letters, so that
   `neve` would equal `even`.
3. Different units, or different bases of two subscripted numbers, are different answers. The parser drops both.
4. A second opinion: where math-verify says "equal" of numbers, their values must agree in relative terms (1e-5 if a
   decimal is in play, else 1e-12). math-verify compares with an absolute bound: 1/2^99 would equal 1/2^98, and .0000672
   .0000673.
5. An inequality in one variable may answer an interval. Other relations may not answer a set: a policy could repeat the
   problem's equations and be paid.
6. Answers are parsed as LaTeX only. math-verify's other route evaluates text through sympy's `parse_expr`.

Its timeouts are switched off (they need signals on the main thread): the caller must be killable. Called in the grading
processes; sympy is imported with the first call.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from r1v0.rewards import latex
from r1v0.rewards.extract import MAX_ANSWER

FLOAT_TOLERANCE = 1e-5
EXACT_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Comparison:
    """A verdict, why, and what the parser made of either side (sympy's notation; "" unless asked for)."""

    equal: bool
    why: str
    gold_form: str = ""
    answer_form: str = ""


def compare(gold: str, answer: str, forms: bool = False) -> Comparison:
    """Whether `answer` is `gold`, symbolically. Never raises on text; may take for ever and eat all memory."""
    if not gold.strip() or not answer.strip():
        return Comparison(False, "empty gold" if not gold.strip() else "empty answer")
    if len(gold) > MAX_ANSWER or len(answer) > MAX_ANSWER:
        return Comparison(False, f"longer than {MAX_ANSWER} characters")
    as_text = _compare_as_text(gold, answer)
    if as_text is not None:
        return as_text
    (gold_text, gold_unit), (answer_text, answer_unit) = latex.clean(gold), latex.clean(answer)
    if gold_unit and answer_unit and gold_unit != answer_unit:
        return Comparison(False, f"units differ: {gold_unit}, {answer_unit}")
    gold_base, answer_base = latex.subscript(gold_text), latex.subscript(answer_text)
    if gold_base and answer_base and gold_base[1] != answer_base[1]:
        return Comparison(False, f"bases differ: {gold_base[1]}, {answer_base[1]}")
    gold_text, answer_text = (gold_base or (gold_text,))[0], (answer_base or (answer_text,))[0]
    if not gold_text or not answer_text:
        return Comparison(False, "nothing left after normalisation")
    try:
        return _compare_parsed(gold_text, answer_text, forms)
    except MemoryError:
        raise
    except Exception as error:  # sympy's, on what no test foresaw: not shown to be equal
        return Comparison(False, f"the comparison failed: {type(error).__name__}")


def _compare_as_text(gold: str, answer: str) -> Comparison | None:
    """The verdict where one side is text, else None."""
    gold_words, answer_words = latex.words(gold), latex.words(answer)
    if gold_words is None and answer_words is None:
        return None
    gold_key, answer_key = latex.word_key(gold), latex.word_key(answer)
    if latex.choice(gold) and len(gold_key) == 1:
        chosen = latex.choice(answer)
        answer_key = chosen.casefold() if chosen else answer_key
    equal = bool(gold_key) and gold_key == answer_key
    return Comparison(equal, "compared as text", gold_key, answer_key)


def _compare_parsed(gold_text: str, answer_text: str, forms: bool) -> Comparison:
    from math_verify.grader import should_treat_as_complex

    is_real = not (should_treat_as_complex(gold_text) or should_treat_as_complex(answer_text))
    one_case = not (_both_cases(gold_text) or _both_cases(answer_text))
    gold, answer = _parse(gold_text, is_real, one_case), _parse(answer_text, is_real, one_case)
    shown = (_show(gold), _show(answer)) if forms else ("", "")
    if gold is None or answer is None:
        return Comparison(False, f"the {'gold' if gold is None else 'answer'} cannot be parsed", *shown)
    if _is_no_value(gold, answer):
        return Comparison(False, "the answer is an equation that states no value", *shown)
    if not _verify(gold, answer):
        return Comparison(False, "not equal symbolically", *shown)
    if _values_differ(gold, answer):
        return Comparison(False, "equal to math-verify, but the values differ", *shown)
    return Comparison(True, "equal symbolically", *shown)


def _both_cases(text: str) -> bool:
    """A letter is there as capital and small: R - r. The parser makes all letters small, which is right for 3R^2 only."""
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
            text, is_real=is_real, normalization_config=normalization, conversion_config=ConversionConfig(lowercase_symbols=one_case)
        )  # fmt: skip
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
        return _values_differ(answer.lhs, answer.rhs)
    return gold == 0 and answer.rhs == 0 and not is_expr_of_only_symbols(answer.lhs)


def _is_range(parsed: Any) -> bool:
    """x > 2, or -2 <= x <= 7: inequalities between one variable and numbers."""
    from sympy import And, Ge, Gt, Le, Lt

    parts = parsed.args if isinstance(parsed, And) else (parsed,)
    return len(getattr(parsed, "free_symbols", ())) == 1 and all(
        isinstance(part, Ge | Gt | Le | Lt) and (part.lhs.is_Symbol or part.rhs.is_Symbol) and len(part.free_symbols) == 1
        and (part.lhs.is_number or part.rhs.is_number)
        for part in parts
    )  # fmt: skip


def _values_differ(gold: Any, answer: Any) -> bool:
    """True if both sides have values, at one fixed point for variables, and these are apart. False is no opinion."""
    try:
        return _values_apart(gold, answer)
    except MemoryError:
        raise
    except Exception:
        return False


def _values_apart(gold: Any, answer: Any) -> bool:
    from sympy import Float, UnevaluatedExpr

    gold_parts, answer_parts = _parts(gold), _parts(answer)
    everything = gold_parts + answer_parts
    if len(gold_parts) != len(answer_parts) or any(part.has(UnevaluatedExpr) for part in everything):
        return False  # a percentage: 10% answers both 10 and 0.1
    gold_values, answer_values = [_value(part) for part in gold_parts], [_value(part) for part in answer_parts]
    if any(value is None for value in gold_values + answer_values):
        return False
    if hasattr(gold, "_unsorted_args") or hasattr(answer, "_unsorted_args"):  # a set: order says nothing
        gold_values, answer_values = sorted(gold_values, key=_order), sorted(answer_values, key=_order)
    tolerance = FLOAT_TOLERANCE if any(part.has(Float) for part in everything) else EXACT_TOLERANCE
    return any(
        left != right and bool(abs(left - right) > tolerance * max(abs(left), abs(right)))
        for left, right in zip(gold_values, answer_values, strict=True)
    )


def _parts(parsed: Any) -> list[Any]:
    """The expressions in an answer; none where there is nothing to compare by value."""
    from sympy import Eq, Expr, FiniteSet, Interval, MatrixBase, Tuple

    if isinstance(parsed, Eq) and parsed.lhs.is_Symbol:
        return _parts(parsed.rhs)
    if isinstance(parsed, Interval):
        return [parsed.start, parsed.end]
    parts = list(
        parsed.flat()
        if isinstance(parsed, MatrixBase)
        else parsed.args
        if isinstance(parsed, FiniteSet | Tuple)
        else [parsed]
    )
    return parts if all(isinstance(part, Expr) for part in parts) else []


def _value(expression: Any) -> Any:
    """Its value to 30 digits, with fixed fractions for variables and the imaginary unit for i. None if it has none."""
    from sympy import I, Rational

    symbols = sorted(expression.free_symbols, key=lambda symbol: str(symbol.name))
    point = {symbol: I if symbol.name == "i" else Rational(7 + 4 * k, 5 + 3 * k) for k, symbol in enumerate(symbols)}
    value = expression.subs(point).evalf(30)
    return value if value.is_number and value.is_finite else None


def _order(value: Any) -> tuple[float, float]:
    real, imaginary = value.as_real_imag()
    return float(real), float(imaginary)
