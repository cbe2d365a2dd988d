"""Prompt templates."""

import gzip
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from r1v0.base.errors import UserError
from r1v0.config import PromptConfig
from r1v0.tasks import sums
from r1v0.tasks.prompts import TEMPLATES, make_prompt, make_prompts, make_stops, render, split_stops, words_of
from r1v0.types import Problem


@dataclass(frozen=True)
class Speaker:
    tokenizer: Tokenizer
    folder: Path


def problem(question: str) -> Problem:
    return Problem("p", question, "", "test")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "What is {x}?"),
        ("countdown", "Q: What is {x}? A:"),
        ("question", "# Question:\nWhat is {x}?\nPlease reason step by step, and put your final answer within " "\\boxed{}.\n# Answer:\n"),
        (
            "qwen-boxed",
            "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
            "<|im_start|>user\nWhat is {x}?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "smollm2-chat",
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nWhat is {x}?\nPlease reason step by step, and put your final answer within \\boxed{}."
            "<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)  # fmt: skip
def test_rendered(template: str, text: str) -> None:
    assert render(template, problem("What is {x}?")) == text


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("question", ["{question}", "{", "}{0}", "%s \\1 $x_{1}$", "a\nb", ""])
def test_a_question_is_put_in_as_it_is(template: str, question: str) -> None:
    before, after = TEMPLATES[template].text.split("{question}")
    assert render(template, problem(question)) == before + question + after


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_are_sound(template: str) -> None:
    row = TEMPLATES[template]
    assert row.text.count("{question}") == 1
    assert row.text == row.text.rstrip(" "), "a final space would be a token of its own"
    assert all(row.stop)
    assert (row.answer == "tags") == ("<answer>" in row.text)


def test_r1_zero_asks_for_its_tags_and_stops_after_the_answer() -> None:
    text = render("r1-zero", problem("1+1?"))
    assert text.startswith(
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
    )
    assert text.endswith("<answer> answer here </answer>. User: 1+1?\nAssistant:")
    assert TEMPLATES["r1-zero"].stop == ("</answer>",)


def test_worked_sums_are_right_and_not_held_out() -> None:
    text = TEMPLATES["sums-2shot"].text
    for numbers in ((7, 15), (8, 31)):
        assert numbers in sums.operands(2, held_out=False)
        assert f"\\boxed{{{sum(numbers)}}}" in text


OWN = PromptConfig(template="mine.toml", text="Frage: {question}\nAntwort:", stop=["\n\n"])


def test_own_words_and_stops() -> None:
    assert words_of(OWN).text.replace("{question}", "{x} {question}") == "Frage: {x} {question}\nAntwort:"
    assert make_stops(OWN, Speaker(words(bos=False), Path("nowhere"))) == (frozenset(), ("\n\n",))
    made = make_prompts(OWN, [problem("two {question}"), problem("")], Speaker(words(bos=False), Path("nowhere")))
    assert [prompt.text for prompt in made] == ["Frage: two {question}\nAntwort:", "Frage: \nAntwort:"]


def test_stops_go_beside_those_of_a_named_template() -> None:
    config = PromptConfig(template="question", stop=["END"])
    assert words_of(config).stop == ("# Question", "END")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (PromptConfig("r1zero"), "unknown prompt template 'r1zero': did you mean 'r1-zero'"),
        (PromptConfig("question", "my {question}"), "prompt.template is 'question', which has words of its own"),
        (PromptConfig("mine", "no place"), "prompt.text has no place for the question: write {question}"),
        (PromptConfig("chat", "no place"), "prompt.text has no place for the question: write {question}"),
        (PromptConfig("mine", "{{question}}"), "prompt.text has {{question}} in double braces"),
        (PromptConfig("a/b.toml", "{problem}"), "prompt template a/b.toml: text has no place for the question"),
        (PromptConfig("mine", "{question}", ["x", ""]), "prompt.stop holds an empty text"),
    ],
)
def test_words_that_cannot_ask(config: PromptConfig, expected: str) -> None:
    with pytest.raises(UserError, match=re.escape(expected)):
        words_of(config)


def test_unknown_template() -> None:
    with pytest.raises(UserError, match="unknown prompt template 'r1zero': did you mean 'r1-zero'"):
        render("r1zero", problem(""))


def words(bos: bool) -> Tokenizer:
    tokenizer = Tokenizer(
        models.WordLevel({"<unk>": 0, "<s>": 1, "Q": 2, "A": 3, ":": 4, "two": 5, "<|im_end|>": 6}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("<|im_end|>", special=True)])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def test_a_prompt_has_the_special_tokens_that_the_tokenizer_adds() -> None:
    with_bos = make_prompt("countdown", problem("two"), words(bos=True))
    assert with_bos.token_ids == [1, 2, 4, 5, 3, 4]
    assert with_bos.text == "Q: two A:"
    assert make_prompt("countdown", problem("two"), words(bos=False)).token_ids == [2, 4, 5, 3, 4]


def test_stops_that_are_special_tokens_are_compared_as_tokens() -> None:
    """ "two" is a token too, but not a special one: " two" or "twofold" must be found in the text."""
    assert split_stops(("<|im_end|>", "two", "</answer>"), words(bos=False)) == (frozenset([6]), ("two", "</answer>"))
    assert split_stops((), words(bos=False)) == (frozenset(), ())


@pytest.mark.shared
def test_chat_markers_are_single_tokens_of_qwen(shared: Path) -> None:
    packed = (shared / "models" / "qwen2.5-tokenizer" / "tokenizer.json.gz").read_bytes()
    tokenizer = Tokenizer.from_str(gzip.decompress(packed).decode())
    start, end = 151644, 151645  # <|im_start|>, <|im_end|>, as in the file
    assert {added["content"]: added["id"] for added in json.loads(gzip.decompress(packed))["added_tokens"]}[
        "<|im_end|>"
    ] == end
    ids = make_prompt("qwen-boxed", problem("What is $1+1$?"), tokenizer).token_ids
    assert [token for token in ids if token in (start, end)] == [start, end, start, end, start]
    assert ids[0] == start
    assert tokenizer.decode(ids, skip_special_tokens=False) == render("qwen-boxed", problem("What is $1+1$?"))
    plain = make_prompt("plain", problem("What is $1+1$?"), tokenizer).token_ids
    assert plain == tokenizer.encode("What is $1+1$?", add_special_tokens=False).ids  # Qwen adds no BOS
    assert split_stops(TEMPLATES["qwen-boxed"].stop, tokenizer) == (frozenset([end]), ())
    assert split_stops(TEMPLATES["r1-zero"].stop, tokenizer) == (frozenset(), ("</answer>",))
