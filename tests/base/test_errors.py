"""The one line that a user reads after a mistake."""

import pytest

from r1v0.base.errors import Interrupted, UserError, unknown

NAMES = ["countdown", "countdown-hard", "math500", "gsm8k"]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("countdwon", "unknown dataset 'countdwon': did you mean 'countdown'?"),
        ("countdown_hard", "unknown dataset 'countdown_hard': did you mean 'countdown-hard'?"),
        ("math", "unknown dataset 'math': did you mean 'math500'?"),
        ("xyz", "unknown dataset 'xyz': known: countdown, countdown-hard, gsm8k, math500"),
        ("", "unknown dataset '': known: countdown, countdown-hard, gsm8k, math500"),
    ],
)
def test_a_name_that_is_not_in_a_table_gets_a_suggestion_or_the_table(given: str, line: str) -> None:
    error = unknown("dataset", given, NAMES)
    assert isinstance(error, UserError)
    assert str(error) == line


def test_the_names_may_come_from_a_dict_or_a_generator() -> None:
    assert str(unknown("reward", "mth", {"math": 1})) == "unknown reward 'mth': did you mean 'math'?"
    assert str(unknown("reward", "zz", (name for name in "ba"))) == "unknown reward 'zz': known: a, b"


def test_an_interruption_is_no_user_error() -> None:
    assert not issubclass(Interrupted, UserError)
    assert not issubclass(UserError, (ValueError, OSError))
