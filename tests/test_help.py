"""Every verb's help ends with examples, which its own parser takes. That the first ones run, in order, from an installed
wheel, is scripts/try_wheel.py's."""

import re
import shlex

import pytest

from r1v0.cli import main, parser


def helped(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_every_verb_ends_with_an_example_that_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = re.findall(r"^    (\w+) ", helped(capsys=capsys), re.MULTILINE)
    assert len(verbs) >= 13
    for verb in verbs:
        lines = helped(verb, capsys=capsys).rstrip("\n").splitlines()
        heads = [number for number, line in enumerate(lines) if line in ("example:", "examples:")]
        assert heads, f"{verb} --help has no example: a third argument of verb(...)"
        examples = lines[heads[-1] + 1 :]
        assert len(examples) == (1 if lines[heads[-1]] == "example:" else 2), verb
        for example in examples:
            prefix, found, words = example.partition(f" {verb} ")
            assert found, example
            assert prefix.startswith("  "), example
            arguments = parser().parse_args([verb, *shlex.split(words.partition(" > ")[0])])
            assert arguments.verb == verb
