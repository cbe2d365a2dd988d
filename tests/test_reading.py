"""The reading path is as short as it promises, and says what is there."""

import re
from pathlib import Path

import r1v0
from tests.conftest import ROOT

PACKAGE = Path(r1v0.__file__).parent
PAGE = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
FILES = re.findall(r"^\*\*\d+\. `([\w/]+\.py)`\.\*\*", PAGE, re.MULTILINE)
MOST = 1600
OUTSIDE = {"packed", "split", "VARIANTS"}  # of other files, which the page names beside them


def test_the_path_is_under_1600_lines() -> None:
    assert len(FILES) == 11
    lines = sum(len((PACKAGE / name).read_text(encoding="utf-8").splitlines()) for name in FILES)
    assert lines < MOST, lines


def test_what_the_page_names_is_there() -> None:
    for name, text in zip(FILES, re.split(r"^\*\*\d+\. ", PAGE, flags=re.MULTILINE)[1:], strict=True):
        there = {path.name for path in (PACKAGE / name).parent.iterdir()}
        code = (PACKAGE / name).read_text(encoding="utf-8")
        for word in re.findall(r"`([A-Za-z_./]+)`", text.partition("\n\n")[0])[1:]:
            is_file = word in there or (PACKAGE / word).is_file()
            assert is_file or word.rpartition(".")[2] in code or word in OUTSIDE, (name, word)


def test_the_drawing_is_the_way_of_the_types() -> None:
    """Every arrow's file makes what it points to of what it comes from, and names both."""
    arrows = re.findall(r"^ +(\w+) -->\|([\w/]+\.py)\| (\w+)$", PAGE, re.MULTILINE)
    assert [arrow[0] for arrow in arrows[1:]] == [arrow[2] for arrow in arrows[:-1]]
    order = [arrow[0] for arrow in arrows]
    defined = re.findall(r"^class (\w+)", (PACKAGE / "types.py").read_text(), re.MULTILINE)
    assert order == [name for name in defined if name in order]
    for source, file, target in arrows:
        text = (PACKAGE / file).read_text(encoding="utf-8").lower()
        assert file in FILES
        assert source.lower() in text, (file, source)
        assert target.lower() in text, (file, target)
