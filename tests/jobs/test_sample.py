"""`r1v0 sample`: answers in order and as they come, whole characters only, and verdicts where the answer is known."""

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from r1v0 import cli
from r1v0.base.errors import UserError
from r1v0.config import resolve
from r1v0.jobs import sample as verb
from r1v0.jobs.sample import Page, known, verdict
from r1v0.models.attention import packed
from r1v0.models.loading import TINY, load
from r1v0.sampling.sampler import Request, SamplingSettings, generate
from r1v0.types import Score
from tests.helpers import small_policy

TEXT = "é → 数学 \U0001f600!\nzwei"


def byte_tokenizer() -> Tokenizer:
    """Every byte is a token, so most characters of TEXT take several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


class Recorder(io.StringIO):
    """What was written, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return super().write(text)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    monkeypatch.setattr(verb, "REDRAW_S", 0.0)
    return Page(replace(small_policy(), tokenizer=byte_tokenizer()), Recorder(), whole_lines=False)


def pieces(page: Page) -> list[str]:
    assert isinstance(page.out, Recorder)
    return page.out.pieces


def ids(page: Page, text: str) -> list[int]:
    return list(page.policy.tokenizer.encode(text).ids)


def feed(page: Page, sample: int, tokens: Sequence[int]) -> None:
    for count in range(1, len(tokens) + 1):
        page.seen(0, sample, tokens[:count])


def test_characters_are_printed_when_they_are_whole(page: Page) -> None:
    tokens = ids(page, TEXT)
    assert len(tokens) == len(TEXT.encode()) > len(TEXT)
    feed(page, 0, tokens)
    page.end(0, TEXT, " (right)")
    assert pieces(page) == [*TEXT, " (right)\n"]


def test_bytes_that_become_no_character_are_shown_at_the_end(page: Page) -> None:
    broken = ids(page, "a数b")[:2]  # a, and the first of three bytes
    feed(page, 0, broken)
    page.end(0, page.policy.decode(broken), "")
    assert "".join(pieces(page)) == "a\ufffd\n"
    whole = "x\ufffdy"  # the character itself, written by the model
    feed(page, 1, ids(page, whole))
    page.end(1, whole, "")
    assert "".join(pieces(page)) == f"a\ufffd\n{whole}\n"


def test_what_could_steer_a_terminal_is_escaped(page: Page) -> None:
    text = "a\x1b[2J\tb\nc"
    feed(page, 0, ids(page, text))
    page.end(0, text, " (wrong)")
    page.end(1, "\r\u202e", "")
    assert "".join(pieces(page)) == "a\\x1b[2J\tb\nc (wrong)\n\\r\\u202e\n"


def test_a_pipe_gets_whole_lines(page: Page) -> None:
    page.whole_lines = True
    feed(page, 0, ids(page, TEXT))
    assert pieces(page) == [TEXT[: TEXT.index("\n") + 1]]
    page.end(0, TEXT, "")
    assert pieces(page) == [TEXT[: TEXT.index("\n") + 1], "zwei\n"]


def test_answers_are_printed_in_order_however_they_end(page: Page) -> None:
    feed(page, 1, ids(page, "second"))
    page.end(2, "third", " (wrong)")
    feed(page, 0, ids(page, "fir"))
    assert "".join(pieces(page)) == "fir"
    page.end(0, "first", "")
    assert "".join(pieces(page)) == "first\nsecond"  # as far as it is
    page.end(1, "second!", "")
    assert "".join(pieces(page)) == "first\nsecond!\nthird (wrong)\n"


def test_a_text_that_changes_behind_itself_is_printed_again(page: Page) -> None:
    """Some decoders clean up what stands before a token; nothing that was shown may be taken for the answer then."""
    feed(page, 0, ids(page, "a ."))
    page.end(0, "a.", "")
    assert "".join(pieces(page)) == "a .\na.\n"


def test_tokens_are_seen_on_their_way() -> None:
    policy = small_policy()
    settings = SamplingSettings(temperature=1.0, max_new_tokens=12, slots=2, eos_ids=frozenset())
    calls: dict[int, list[list[int]]] = {0: [], 1: [], 2: []}
    requests = [Request([3, 4], [1, 2, 3])]
    made = generate(policy.model, requests, settings, seen=lambda _, sample, ids: calls[sample].append(list(ids)))
    for _, sample, completion in made:
        assert calls[sample] == [completion.token_ids[:count] for count in range(1, 12)]


# Verdicts

COUNTDOWN = resolve("countdown")


def test_a_countdown_problem_says_its_own_answer() -> None:
    problem, reward = known(" 3 7  4 target 17 ", COUNTDOWN)
    assert (problem.answer, reward and reward.name) == ("17 from 3 7 4", "countdown")
    with pytest.raises(UserError, match="--gold is given, but a countdown problem is graded by its own target"):
        known("3 7 4 target 17", COUNTDOWN, "17")
    for other in ("3 7 4 target", "target 17", "3 target 17", "3 7 x target 17", "3 7 4 target 1.5"):
        assert known(other, COUNTDOWN)[1] is None


def test_a_gold_answer_is_graded_as_mathematics() -> None:
    problem, reward = known("What is 1+1?", COUNTDOWN, "2")
    assert (problem.answer, reward and reward.name) == ("2", "math")
    gsm8k = resolve("qwen2.5-0.5b-gsm8k")
    assert (known("1+1?", gsm8k, "2")[1] or gsm8k.reward).name == gsm8k.reward.name


def test_a_problem_of_an_evaluation_set_has_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"problem": "What is $1+1$?", "answer": "2"}) + "\n")
    config = resolve("qwen2.5-0.5b-gsm8k", sets=[f"eval.on=['mine={path}', 'sums', 'math500', 'gone=/no/such']"])
    problem, reward = known("what is 1 + 1?", config)
    assert (problem.question, problem.answer, reward is None) == ("what is 1 + 1?", "2", False)
    assert known("What is 1+2?", config)[1] is None  # math500 is not asked for: that would need the network


@pytest.mark.parametrize(
    ("score", "word"),
    [
        (Score(1.0, True), "right"),
        (Score(0.0, False), "wrong"),
        (Score(1.25, True), "right, reward 1.25"),
        (Score(-0.5, False), "wrong, reward -0.5"),
        (Score(0.0, False, failure="timeout"), "no verdict: timeout"),
    ],
)
def test_verdicts(score: Score, word: str) -> None:
    assert verdict(score) == word


def sampled(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[str], str]:
    capsys.readouterr()
    assert cli.main(["sample", "tiny", *arguments, "--set", "threads=1"]) == 0
    out, err = capsys.readouterr()
    return out.splitlines(), err


def test_verdicts_stand_behind_the_answers(capsys: pytest.CaptureFixture[str]) -> None:
    """The texts are those of the same seed without verdicts; a right one reaches 17 with 3, 7 and 4."""
    lines, err = sampled(capsys, "3 7 4 target 17", "--samples", "16")
    assert len(lines) == 16
    right = [line for line in lines if line.endswith(" (right)")]
    assert all(line.endswith((" (right)", " (wrong)")) for line in lines)
    said, settings = err.splitlines()[1:], err.splitlines()[0]
    assert settings == "settings: built-in defaults < preset countdown (for tiny) < --set threads=1"
    assert said == [f"{len(right)} of 16 right"]
    assert 0 < len(right) < 16
    for line in right:
        expression = line.removesuffix(" (right)").rpartition("\\boxed{")[2].removesuffix("}")
        assert expression in ("(3*7)-4", "(7*3)-4", "3*7-4", "7*3-4")
    cut, _ = sampled(capsys, "3 7 4 target 17", "--set", "sampling.max_new_tokens=3")
    assert cut[0].endswith(" ... (cut off at 3 tokens, wrong)")
    unknown, err = sampled(capsys, "3 7 4 is what", "--samples", "2", "--set", "sampling.max_new_tokens=200")
    assert not any("right" in line or "wrong" in line for line in unknown)
    assert [line for line in err.splitlines() if not line.startswith("settings: ")] == []


def test_greedy_takes_the_likeliest_token(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the seed; and equal to the argmax of one full forward pass after another."""
    one, _ = sampled(capsys, "3 7 4 target 17", "--greedy")
    two, _ = sampled(capsys, "3 7 4 target 17", "--greedy", "--set", "seed=5")
    assert one == two
    policy = load(TINY)
    tokens = list(policy.tokenizer.encode("Q: 3 7 4 target 17 A:").ids)
    prompt = len(tokens)
    with torch.no_grad():
        while tokens[-1] not in policy.eos_ids:
            positions = torch.arange(len(tokens))
            hidden = policy.model(torch.tensor(tokens), positions, packed(torch.tensor([0, len(tokens)])))
            tokens.append(int(policy.model.head(hidden[-1:]).argmax()))
    assert one[0].rpartition(" (")[0] == policy.decode(tokens[prompt:])


def test_greedy_gives_one_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sample", "tiny", "1 2 3 target 4", "--greedy", "--samples", "2"]) == 2
    assert "--greedy gives one answer, and --samples is 2: leave one of them out" in capsys.readouterr().err


def test_a_terminal_gets_tokens_as_they_come() -> None:
    """In all it is what a pipe gets."""
    command = [sys.executable, "-m", "r1v0", "sample", "tiny", "3 7 4 target 17", "--set", "threads=1"]
    piped = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    got = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # Linux: the other end is closed
            break
        if not chunk:
            break
        got += chunk
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert got.replace(b"\r\n", b"\n") == piped
