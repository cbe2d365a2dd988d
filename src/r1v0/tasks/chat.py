"""A model's own chat template, rendered as `transformers` does, without a line of the model's code in this process.

Decides: a chat template is a Jinja program that came with a model, so it is a stranger's code. It runs in a process
of its own: a sandboxed environment, no variables of ours, limits of memory, processor time and length, and killed
when it takes too long. All prompts of a call go there at once; starting it takes 0.2 s. Folder and variables are
what `transformers.apply_chat_template` takes: chat_template.jinja, else "chat_template" of tokenizer_config.json (of
a list the one named "default"), with the special tokens by name, one message of the user's and
`add_generation_prompt`.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from r1v0.base import reading
from r1v0.base.errors import UserError, need_unix
from r1v0.tasks.grading.processes import environment

TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MAX_TEMPLATE = 1 << 20
MAX_PROMPT = 1 << 20
"""Longest rendered prompt, in characters."""
MEMORY_MB = 1024
TIME_S = 20.0
"""For the template; a thousand prompts more may take a second more."""

_REPLY = "\ue000reply\ue001"  # stands for a model's answer: no template has these characters


def render(folder: Path, contents: Sequence[str]) -> list[str]:
    """Each content as the only message of a user, in the words of the chat template in `folder`, up to where the model
    answers. Raises UserError: no template, one that fails, or one that takes too much."""
    template, tokens = _template(folder)
    return _rendered(folder, template, tokens, [[_message("user", content)] for content in contents], True)


def turn_end(folder: Path, added: Sequence[str]) -> tuple[str, ...]:
    """What the chat template writes behind a model's answer, as a stop text: one of the `added` tokens, else the text
    itself. None if it writes nothing, or takes no answers. Raises UserError as `render` does."""
    return _turn_end(folder, *_template(folder), tuple(added))


@lru_cache(maxsize=8)
def _turn_end(folder: Path, template: str, tokens: str, added: tuple[str, ...]) -> tuple[str, ...]:
    chat = [_message("user", "?"), _message("assistant", _REPLY)]
    try:
        text = _rendered(folder, template, tokens, [chat], False)[0]
    except UserError:  # a template that knows no answers; one that fails on questions too is told there
        return ()
    _, _, tail = text.rpartition(_REPLY)
    tail = tail.strip() if _REPLY in text else ""
    marks = sorted((token for token in added if token and tail.startswith(token)), key=len)
    return (marks[-1],) if marks else (tail,) if tail else ()


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _template(folder: Path) -> tuple[str, str]:
    """The chat template of a model's folder, and its special tokens as a JSON object. Raises UserError if there is
    none."""
    path, settings = folder / "tokenizer_config.json", {}
    if path.is_file():
        settings = reading.read_json(path)
    tokens = {name: _content(settings.get(name)) for name in TOKENS}
    if (folder / "special_tokens_map.json").is_file():
        older = reading.read_json(folder / "special_tokens_map.json")
        tokens |= {name: _content(older.get(name)) for name in TOKENS if tokens[name] is None}
    found = settings.get("chat_template")
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            found = reading.read(file, MAX_TEMPLATE).decode("utf-8")
        except (OSError, ValueError) as error:
            raise UserError(
                f"{file} cannot be read ({type(error).__name__}): download or save the model again"
            ) from None
    if not isinstance(found, str) or not found:
        raise UserError(
            f"prompt.template is chat, but {folder} has no chat template (no chat_template.jinja, none in "
            "tokenizer_config.json): "
            "name a template, or give a file of your own"
        )
    return found, json.dumps({name: token for name, token in tokens.items() if token is not None})


def _content(token: object) -> str | None:
    """A special token as it is written: a text, or an object that holds it."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _rendered(
    folder: Path, template: str, tokens: str, chats: Sequence[Sequence[dict[str, str]]], prompt: bool
) -> list[str]:
    task = {"template": template, "tokens": json.loads(tokens), "chats": list(chats), "prompt": prompt}
    what = f"the chat template of {folder}"
    need_unix(what)
    seconds = TIME_S + len(chats) / 1000
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "r1v0.tasks.chat", str(int(seconds) + 1)],
            input=json.dumps(task).encode("ascii"),
            capture_output=True,
            env=environment(),
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{what} takes more than {seconds:.0f} s: use another prompt.template") from None
    answer: dict[str, Any] = {}
    with contextlib.suppress(ValueError, RecursionError):
        answer = json.loads(done.stdout)
    if "error" in answer:
        raise UserError(f"{what} {answer['error'][:300]}: use another prompt.template")
    texts = answer.get("texts")
    if done.returncode or not isinstance(texts, list) or len(texts) != len(chats):
        raise UserError(
            f"{what} takes too much memory or time (exit code {done.returncode}): use another prompt.template"
        )
    return texts


def main(seconds: int) -> int:
    """The process: one task from standard input, one answer to standard output."""
    import resource  # not on Windows, where no such process is started

    task = json.loads(sys.stdin.buffer.read())
    for kind, value in (
        (resource.RLIMIT_AS, MEMORY_MB << 20),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, value))
    try:
        answer: dict[str, Any] = {"texts": _texts(**task)}
    except (MemoryError, RecursionError) as error:
        answer = {"error": f"takes too much ({type(error).__name__})"}
    except Exception as error:  # whatever a stranger's program raises
        answer = {"error": f"raises {type(error).__name__}: {' '.join(str(error).split())}"}
    sys.stdout.write(json.dumps(answer))
    return 0


def _texts(template: str, tokens: dict[str, str], chats: list[list[dict[str, str]]], prompt: bool) -> list[str]:
    program = _environment().from_string(template)
    found = []
    for chat in chats:
        size, pieces = 0, []
        for piece in program.generate(
            messages=chat, tools=None, documents=None, add_generation_prompt=prompt, **tokens
        ):
            size += len(piece)
            if size > MAX_PROMPT:
                raise MemoryError
            pieces.append(piece)
        found.append("".join(pieces))
    return found


def _environment() -> Any:
    """Jinja as chat templates expect it: as `transformers` sets it up."""
    from jinja2 import TemplateError, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """{% generation %}: marks what a model wrote, for training on it; here it is what it encloses."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> list[nodes.Node]:
            next(parser.stream)
            inside: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return inside

    class PlainNamespace(Namespace):
        """A namespace without private names, by which a template could reach Python's own objects."""

        def __setitem__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                raise SecurityError(f"a template must not set {name!r}")
            super().__setitem__(name, value)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    made.filters["tojson"] = tojson
    made.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "namespace": PlainNamespace,
    }
    return made


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
