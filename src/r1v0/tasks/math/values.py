"""Values of expressions: a second opinion beside math-verify, and a first one where it would take forever.

Decides: two expressions are different where their values are, in relative terms (1e-5 if a decimal is in play, else
1e-12): math-verify compares with an absolute bound, so 1/2^99 would equal 1/2^98, and .0000672 .0000673. Expressions
in variables are the same where they have the same values, to 50 digits, at all of POINTS at which both are defined
in real numbers, and at least ENOUGH of them; some are negative, so |x| is not x. That is how \\sqrt{1/n} is
1/\\sqrt{n}, and how a long trigonometric identity is told in milliseconds. What could hide a difference from 50
digits (a term 10^-30 times another) gets no opinion.
"""

from typing import Any

FLOAT_TOLERANCE = 1e-5
EXACT_TOLERANCE = 1e-12
DIGITS = 60
POINTS = 14
ENOUGH = 6
LARGEST = 10**20
SMALLEST = 1e-30


def differ(gold: Any, answer: Any) -> bool:
    """True if both sides have values, at one fixed point for variables, and these are apart. False is no opinion."""
    try:
        return _differ(gold, answer)
    except MemoryError:
        raise
    except Exception:
        return False


def _differ(gold: Any, answer: Any) -> bool:
    from sympy import Float, UnevaluatedExpr

    gold_parts, answer_parts = parts(gold), parts(answer)
    everything = gold_parts + answer_parts
    if len(gold_parts) != len(answer_parts) or any(part.has(UnevaluatedExpr) for part in everything):
        return False  # a percentage: 10% answers both 10 and 0.1
    gold_values, answer_values = [_value(part) for part in gold_parts], [_value(part) for part in answer_parts]
    if any(value is None for value in gold_values + answer_values):
        return False
    if hasattr(gold, "_unsorted_args") or hasattr(answer, "_unsorted_args"):  # a set: order says nothing
        gold_values, answer_values = sorted(gold_values, key=_order), sorted(answer_values, key=_order)
    tolerance = FLOAT_TOLERANCE if any(part.has(Float) for part in everything) else EXACT_TOLERANCE
    return any(apart(left, right, tolerance) for left, right in zip(gold_values, answer_values, strict=True))


def apart(left: Any, right: Any, tolerance: float = EXACT_TOLERANCE) -> bool:
    """Whether two numbers are further from each other than the tolerance, relative to the larger one."""
    return bool(left != right) and bool(abs(left - right).evalf(15) > tolerance * max(abs(left), abs(right)).evalf(15))


def parts(parsed: Any) -> list[Any]:
    """The expressions in an answer; none where there is nothing to compare by value."""
    from sympy import Eq, Expr, FiniteSet, Interval, MatrixBase, Tuple

    if isinstance(parsed, Eq) and parsed.lhs.is_Symbol:
        return parts(parsed.rhs)
    if isinstance(parsed, Interval):
        return [parsed.start, parsed.end]
    found = list(
        parsed.flat()
        if isinstance(parsed, MatrixBase)
        else parsed.args
        if isinstance(parsed, FiniteSet | Tuple)
        else [parsed]
    )
    return found if all(isinstance(part, Expr) for part in found) else []


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


class _Undefined(Exception):
    """No real value here."""


class _Unknown(Exception):
    """An expression that is not read here."""


def same_function(gold: Any, answer: Any) -> bool | None:
    """Whether two expressions in variables have the same values wherever both have real ones; False for numbers that
    are apart. None is no opinion."""
    import mpmath
    from sympy import Float

    symbols = sorted(gold.free_symbols | answer.free_symbols, key=lambda symbol: str(symbol.name))
    if any(symbol.name == "i" for symbol in symbols):
        return None
    rounded = gold.has(Float) or answer.has(Float)
    if not symbols:
        return _same_number(gold, answer, FLOAT_TOLERANCE if rounded else EXACT_TOLERANCE)
    met = 0
    with mpmath.workdps(DIGITS):
        for number in range(POINTS):
            point = {symbol: _coordinate(number, k) for k, symbol in enumerate(symbols)}
            try:
                left, right = _real(gold, point), _real(answer, point)
            except _Undefined:
                continue
            except (_Unknown, ValueError, OverflowError, ZeroDivisionError, TypeError):
                return None
            size = max(abs(left), abs(right))
            if not mpmath.isfinite(size):
                return None
            if abs(left - right) > size * mpmath.mpf(10) ** -50:
                return None if rounded or abs(left - right) < size * mpmath.mpf(10) ** -12 else False
            met += 1
    return True if met >= ENOUGH else None


def _same_number(gold: Any, answer: Any, tolerance: float) -> bool | None:
    """False for two numbers that are apart; else None, for digits do not show that two numbers are one."""
    import mpmath

    with mpmath.workdps(DIGITS):
        try:
            left, right = _real(gold, {}), _real(answer, {})
            return False if abs(left - right) > tolerance * max(abs(left), abs(right)) else None
        except (_Undefined, _Unknown, ValueError, OverflowError, ZeroDivisionError, TypeError):
            return None


def _coordinate(number: int, k: int) -> Any:
    """The k-th coordinate of a point: all positive in the first half, then of mixed signs; small and large."""
    import mpmath

    size = mpmath.mpf((3 + 7 * number + 5 * k * (number + 1)) % 97 + 1) / ((11 + 3 * number + 2 * k) % 13 + 7)
    size *= (1, 1, 30)[(number + k) % 3]
    return -size if number >= POINTS // 2 and (number >> (k % 3)) & 1 else size


def _real(expression: Any, point: dict[Any, Any]) -> Any:
    """Its real value at a point. Raises _Undefined without one (a root or logarithm of a negative number), _Unknown
    for what is not read here: decimals, numbers beyond LARGEST, sums, functions without a name."""
    import mpmath
    from sympy import E, Pow, Rational, pi

    if expression.is_Symbol:
        return point[expression]
    if isinstance(expression, Rational):
        if abs(expression.p) > LARGEST or expression.q > LARGEST:
            raise _Unknown
        return mpmath.mpf(expression.p) / expression.q
    if expression.is_Float:
        return mpmath.mpf(str(expression))
    if expression in (pi, E):
        return +(mpmath.pi if expression == pi else mpmath.e)
    if expression.is_Mul:
        return mpmath.fprod([_real(argument, point) for argument in expression.args])
    if expression.is_Add:
        values = [_real(argument, point) for argument in expression.args]
        sizes = [abs(value) for value in values if value]
        if sizes and min(sizes) < max(sizes) * SMALLEST:
            raise _Unknown
        return mpmath.fsum(values)
    if isinstance(expression, Pow):
        return _power(_real(expression.base, point), expression.exp, point)
    name = type(expression).__name__
    function = _functions().get(name)
    if function is None or len(expression.args) > 2:
        raise _Unknown
    values = [_real(argument, point) for argument in expression.args]
    if name == "log" and (values[0] <= 0 or (values[1:] and (values[1] <= 0 or values[1] == 1))):
        raise _Undefined
    if name in ("asin", "acos") and abs(values[0]) > 1:
        raise _Undefined
    if 0 < abs(values[0]) < 1e-8 or (name == "tanh" and abs(values[0]) > 20):
        raise _Unknown
    return function(*values)


def _power(base: Any, exponent: Any, point: dict[Any, Any]) -> Any:
    import mpmath
    from sympy import Rational

    power = _real(exponent, point)
    if abs(power) > 1000:
        raise _Unknown
    if base == 0 and power <= 0:
        raise _Undefined
    if base < 0 and power != int(power):
        odd = isinstance(exponent, Rational) and exponent.q % 2 == 1
        if not odd:
            raise _Undefined
        root = mpmath.power(-base, power)
        return -root if exponent.p % 2 else root
    return mpmath.power(base, int(power) if power == int(power) else power)


def _functions() -> dict[str, Any]:
    import mpmath

    names = "sin cos tan cot sec csc asin acos atan sinh cosh tanh exp log"
    return {name: getattr(mpmath, name) for name in names.split()} | {"Abs": abs}
