"""A model's own chat template: byte for byte what `transformers` renders, and nothing that a hostile one could do."""

import gzip
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from r1v0.base.errors import UserError
from r1v0.config import PromptConfig
from r1v0.tasks import chat
from r1v0.tasks.prompts import make_prompts, make_stops
from r1v0.types import Problem

QUESTIONS = [
    "What is 1+1?",
    "  outer space \n",
    "{{ 7 * 7 }} {% raise %} {question} {# no #}",
    "quotes \" ' \\ / <b> & \t",
    "Ünïcödé 数学 \U0001f600 \u2028",
    "<|im_end|>\n<|im_start|>system",
    "a\n\nb\n",
    "</think> x",
    "",
]

TEMPLATES = {
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' "
    "+ '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "a default system turn": "{%- if messages[0]['role'] != 'system' %}\n    {{- '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}\n"
    "{%- endif %}\n{%- for m in messages %}\n    {{- '<|im_start|>' ~ m.role ~ '\\n' ~ m.content | trim ~ "
    "'<|im_end|>\\n' }}\n"
    "{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n",
    "headers, with bos": "{{ bos_token }}{% for m in messages %}{% set c = '<|head|>' + m['role'] + '<|end_head|>\n\n' + "
    "m['content'] | trim + '<|im_end|>' %}{{ c }}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|head|>assistant<|end_head|>"
    "\n\n' }}{% endif %}",
    "roles must take turns": "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{% for m in "
    "messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns!') }}{% endif %}[INST] "
    "{{ m.content }} [/INST]{% if not loop.last %}{{ eos_token }}{% endif %}{% endfor %}",
    "blocks on lines of their own": "{% if tools is none %}\n  {% for m in messages %}\n  {{ m.content }}\n  {% endfor %}\n"
    "{% endif %}\nAnswer:\n",
    "namespace, macro, loop control": "{% set ns = namespace(found=false, n=0) %}{% macro turn(m) %}<{{ m.role }}>{{ m.content }}"
    "{% endmacro %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% if ns.found %}{% break %}{% endif %}"
    "{% if m.role == 'x' %}{% continue %}{% endif %}{{ turn(m) }}{% set ns.found = true %}{% endfor %}{{ ns.n }}",
    "json": "{{ messages | tojson }}{{ messages | tojson(indent=2) }}{{ {'b': 1, 'a': '<ä>'} | "
    "tojson(sort_keys=true) }}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration "
    "%}{% else %}"
    "U: {{ m.content }}\n{% endif %}{% endfor %}{% generation %}A:{% endgeneration %}",
    "date": "{{ strftime_now('%Y') }} {{ messages[0].content }}",
    "strings": "{{ messages[0].content.split('\n')[0].strip() | upper }}{{ messages[0]['content'] | length }}{{ unknown "
    "}}"
    "{{ messages[0].content.startswith('W') }}{{ pad_token is defined }}{{ '%s' | format(messages | length) }}",
    "dictionaries": "{% for key, value in messages[0].items() | sort %}{{ key }}={{ value }};{% endfor %}{{ dict(a=1) }}"
    "{% for i in range(3) %}{{ i }}{% endfor %}{{ documents is none }}",
}


def a_tokenizer(bos: bool = True) -> Tokenizer:
    marks = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|head|>", "<|end_head|>"]
    tokenizer = Tokenizer(
        models.WordLevel({mark: i for i, mark in enumerate([*marks, "w", "<unk>"])}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


@dataclass(frozen=True)
class Speaker:
    tokenizer: Tokenizer
    folder: Path


def written(folder: Path, template: object, **more: object) -> Speaker:
    """A folder as `save_pretrained` leaves it, with the template in tokenizer_config.json."""
    tokenizer = a_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    eos = {"content": "</s>", "special": True, "__type": "AddedToken"}
    settings: dict[str, Any] = {"bos_token": "<s>", "eos_token": eos, "tokenizer_class": "PreTrainedTokenizerFast"}
    settings |= {"chat_template": template} if template else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | more), encoding="utf-8")
    return Speaker(tokenizer, folder)


def problems(*questions: str) -> list[Problem]:
    return [Problem(f"p{i}", question, "", "test") for i, question in enumerate(questions)]


CHAT = PromptConfig(template="chat")


def reference(folder: Path, question: str) -> tuple[str, list[int]]:
    theirs = PreTrainedTokenizerFast.from_pretrained(str(folder))
    messages = [{"role": "user", "content": question}]
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return str(text), list(ids)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chat_is_what_transformers_renders(tmp_path: Path, name: str) -> None:
    speaker = written(tmp_path, TEMPLATES[name])
    texts = chat.render(tmp_path, QUESTIONS)
    for question, text in zip(QUESTIONS, texts, strict=True):
        expected, ids = reference(tmp_path, question)
        assert text == expected
        if ids:
            assert make_prompts(CHAT, problems(question), speaker)[0].token_ids == ids


def test_a_template_is_found_where_it_is_kept(tmp_path: Path) -> None:
    """A file goes before the settings, and of several the default one is taken."""
    several = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "D {{ messages[0].content }}"}]
    written(tmp_path, several)
    assert chat.render(tmp_path, ["x"]) == ["D x"] == [reference(tmp_path, "x")[0]]
    (tmp_path / "chat_template.jinja").write_text("F {{ messages[0].content }}\n", encoding="utf-8")
    assert chat.render(tmp_path, ["x"]) == ["F x"] == [reference(tmp_path, "x")[0]]
    written(tmp_path, None)
    assert chat.render(tmp_path, ["x"]) == ["F x"]


def test_tokens_of_an_older_folder(tmp_path: Path) -> None:
    written(tmp_path, "{{ bos_token }}{{ eos_token }}", bos_token=None)
    (tmp_path / "special_tokens_map.json").write_text('{"bos_token": {"content": "<s>"}, "eos_token": "old"}')
    assert chat.render(tmp_path, ["x"]) == ["<s></s>"]


@pytest.mark.parametrize(
    ("template", "stops"),
    [
        (TEMPLATES["chatml"], (frozenset([3]), ())),
        (TEMPLATES["headers, with bos"], (frozenset([3]), ())),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n###\n{% endfor %}", (frozenset(), ("###",))),
        ("{% for m in messages %}{{ m.content + ' ' + eos_token }}{% endfor %}", (frozenset([1]), ())),
        ("{{ messages[0].content }}", (frozenset(), ())),
        ("{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}x", (frozenset(), ())),
    ],
)
def test_an_answer_ends_where_the_template_ends_one(
    tmp_path: Path, template: str, stops: tuple[frozenset[int], tuple[str, ...]]
) -> None:
    assert make_stops(CHAT, written(tmp_path, template)) == stops


def test_own_words_are_the_users_turn(tmp_path: Path) -> None:
    speaker = written(tmp_path, TEMPLATES["chatml"])
    config = PromptConfig(template="chat", text="Solve {question} in \\boxed{}.", stop=["\n\n"])
    assert make_prompts(config, problems("1+1"), speaker)[0].text == (
        "<|im_start|>user\nSolve 1+1 in \\boxed{}.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert make_stops(config, speaker) == (frozenset([3]), ("\n\n",))


def test_no_prompt_begins_with_two_bos(tmp_path: Path) -> None:
    """The template writes one, and so does the tokenizer; also where a user's own words begin with it."""
    speaker = written(tmp_path, "{{ bos_token }} {{ messages[0].content }}")
    assert make_prompts(CHAT, problems("w w"), speaker)[0].token_ids == [0, 6, 6]
    own = PromptConfig(template="mine", text="<s> {question}")
    assert make_prompts(own, problems("w w"), speaker)[0].token_ids == [0, 6, 6]
    plain = PromptConfig(template="plain")
    assert make_prompts(plain, problems("w w"), speaker)[0].token_ids == [0, 6, 6]


def refused(folder: Path, template: object) -> str:
    written(folder, template)
    with pytest.raises(UserError) as caught:
        chat.render(folder, ["x"])
    said = str(caught.value)
    assert str(folder) in said
    assert len(said) < 700
    return said.replace(str(folder), "FOLDER")


def test_a_folder_without_a_template_is_told(tmp_path: Path) -> None:
    for absent in (None, 7, [], [{"name": "rag", "template": "x"}], {"default": "x"}):
        assert refused(tmp_path, absent).startswith(
            "prompt.template is chat, but FOLDER has no chat template (no chat_"
        )


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for %}", "raises TemplateSyntaxError: "),
        ("{{ raise_exception('only tools\nhere') }}", "raises TemplateError: only tools here"),
        ("{{ messages[0].content.x.y }}", "raises UndefinedError: "),
        ("{{ 1 / 0 }}", "raises ZeroDivisionError: "),
    ],
)
def test_a_template_that_fails_is_told_in_one_line(tmp_path: Path, template: str, reason: str) -> None:
    said = refused(tmp_path, template)
    assert said.startswith(f"the chat template of FOLDER {reason}")
    assert said.endswith(": use another prompt.template")


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ namespace.__init__.__globals__ }}",
    "{% set ns = namespace() %}{% set ns.__class__ = dict %}{{ ns }}",
    "{% set ns = namespace(_x=1) %}{% set ns._y = 2 %}{{ ns._y }}",
    "{{ raise_exception.__globals__ }}",
    "{{ '%s' | format(lipsum.__globals__['os']) }}",
    "{{ messages.append(1) }}",
    "{% include '/etc/hostname' %}",
    "{% import 'os' as os %}",
    "{{ self.__init__.__globals__ }}",
    "{{ messages | attr('__class__') }}",
    "{{ '{0.__class__.__mro__}' | format(1) }}{{ '{0.__class__.__mro__}'.format(1) }}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_a_template_cannot_reach_python(tmp_path: Path, template: str) -> None:
    """Refused, or nothing of Python's is in what it writes."""
    written(tmp_path, template)
    try:
        text = chat.render(tmp_path, ["x"])[0]
    except UserError:
        return
    assert not any(word in text for word in ("<class", "<module", "<function", "uid=", "os.py")), text


EXPENSIVE = {
    "time": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "one long text": "{{ 'x' * 10000000000 }}",
    "a long output": "{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
    "a large number": "{{ 10 ** 1000000000 }}",
    "a wide format": "{{ '%10000000000d' | format(1) }}",
    "a list that doubles": "{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
    "recursion": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "a long range": "{{ range(1000000000) | list }}",
}


@pytest.mark.parametrize("template", EXPENSIVE.values(), ids=EXPENSIVE)
def test_a_template_that_takes_too_much_is_ended(
    tmp_path: Path, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "TIME_S", 2.0)
    started = time.monotonic()
    said = refused(tmp_path, template)
    assert "takes " in said or "raises Overflow" in said or "raises Security" in said, said
    assert time.monotonic() - started < 20


def test_the_template_sees_no_variables_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process has a scrubbed environment: what an escape could read is not there."""
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    given: list[dict[str, str]] = []
    run: Any = subprocess.run

    def record(*arguments: Any, env: dict[str, str], **options: Any) -> Any:
        given.append(env)
        return run(*arguments, env=env, **options)

    monkeypatch.setattr(subprocess, "run", record)
    written(tmp_path, "x")
    assert chat.render(tmp_path, ["?"]) == ["x"]
    assert "PATH" in given[0]
    assert "SECRET_TOKEN" not in given[0]


@pytest.mark.shared
def test_the_real_template_of_qwen(shared: Path, tmp_path: Path) -> None:
    source = shared / "models" / "qwen2.5-tokenizer"
    (tmp_path / "tokenizer.json").write_bytes(gzip.decompress((source / "tokenizer.json.gz").read_bytes()))
    (tmp_path / "tokenizer_config.json").write_bytes((source / "tokenizer_config.json").read_bytes())
    speaker = Speaker(Tokenizer.from_file(str(tmp_path / "tokenizer.json")), tmp_path)
    made = make_prompts(CHAT, problems(*QUESTIONS), speaker)
    for question, prompt in zip(QUESTIONS, made, strict=True):
        assert (prompt.text, prompt.token_ids) == reference(tmp_path, question)
    assert make_stops(CHAT, speaker) == (frozenset([151645]), ())
