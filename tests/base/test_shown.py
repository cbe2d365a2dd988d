"""Hostile text on its way to a terminal."""

import io

from r1v0.base.shown import fitting, shown


def test_what_does_not_print_is_escaped() -> None:
    assert shown("x² = 4, 答") == "x² = 4, 答"
    assert shown("a\x1b[2Jb\r\x07\x9b\u202e\ud800\n") == r"a\x1b[2Jb\r\x07\x9b\u202e\ud800\n"


def test_line_breaks_and_tabs_stay_where_they_are_wanted() -> None:
    assert shown("a\tb\nc\x08", keep="\n\t") == "a\tb\nc\\x08"


def test_a_stream_gets_what_its_encoding_has() -> None:
    assert fitting("÷ 答", io.TextIOWrapper(io.BytesIO(), encoding="latin-1")) == "÷ \\u7b54"
    assert fitting("÷ 答", io.TextIOWrapper(io.BytesIO(), encoding="utf-8")) == "÷ 答"
    assert fitting("÷", io.StringIO()) == r"\xf7"
