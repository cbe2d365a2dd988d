"""Prompt templates: a problem in the words that a model is asked with.

Decides: a template is literal text with one `{question}`, which is replaced, not formatted: braces in a question
stay. The template also says what ends an answer (`stop`) and where the answer stands (`answer`), because prompt,
stop and reward must fit each other; a wrong template halves a base model's score, and its repair then looks like
learning (Understanding R1-Zero-Like Training, arXiv 2503.20783, sec. 2). It is a row of TEMPLATES, a user's own
(`prompt.text`, or the file that prompt.template names), or "chat": then those words are the user's turn in the
model's own chat template (chat.py).

A prompt is encoded with the special tokens that the tokenizer itself adds (a BOS for Llama, none for Qwen and
SmolLM2), as in pretraining, but never with two BOS; a chat template writes its own. <|im_start|> and the like in a
template become their own tokens. So they would in a question: data from strangers could end the user's turn. Nothing
is done about that: it harms one prompt, not the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from r1v0.base.errors import UserError, unknown
from r1v0.config import CHAT, PromptConfig
from r1v0.tasks import chat
from r1v0.types import Problem, Prompt

_BOXED = "Please reason step by step, and put your final answer within \\boxed{}."


@dataclass(frozen=True)
class Template:
    """`text` holds {question} once. A completion ends where one of `stop` appears (it belongs to the completion). The
    answer is in the last \\boxed{...} ("boxed") or in <answer> tags ("tags")."""

    text: str
    stop: tuple[str, ...] = ()
    answer: Literal["boxed", "tags"] = "boxed"


TEMPLATES: dict[str, Template] = {
    # the embedded base model's own words
    "countdown": Template("Q: {question} A:"),
    # the question and nothing else: the best one for Qwen2.5-Math base models (arXiv 2503.20783, table 1)
    "plain": Template("{question}"),
    # DeepSeek-R1 (arXiv 2501.12948), table 1; a line break stands before "Assistant:", where the paper has ". "
    "r1-zero": Template(
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
        "The assistant first thinks about the reasoning process in the mind and then provides the user with "
        "the answer. "
        "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, "
        "respectively, "
        "i.e., <think> reasoning process here </think> <answer> answer here </answer>. User: {question}\nAssistant:",
        stop=("</answer>",),
        answer="tags",
    ),
    # the original r1-v0 (jackfsuia/nanoRLHF, examples/r1-v0/grpo_r1.py). It had no stop: it read the first box, not the
    # last, so a base model that went on with a question of its own did no harm but cost tokens
    "question": Template(f"# Question:\n{{question}}\n{_BOXED}\n# Answer:\n", stop=("# Question",)),
    # Qwen2.5-Math's chat template, as in sail-sg/understand-r1-zero (qwen_math)
    "qwen-boxed": Template(
        f"<|im_start|>system\n{_BOXED}<|im_end|>\n<|im_start|>user\n{{question}}<|im_end|>\n<|im_start|>assistant\n",
        stop=("<|im_end|>",),
    ),
    # SmolLM2-Instruct's chat template with its default system prompt; the request goes with the question
    "smollm2-chat": Template(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        f"<|im_start|>user\n{{question}}\n{_BOXED}<|im_end|>\n<|im_start|>assistant\n",
        stop=("<|im_end|>",),
    ),
    # two worked sums for a small base model, which answers in the form that it is shown
    "sums-2shot": Template(
        "Question: What is the sum of 7 and 15?\nAnswer: 7 + 15 = 22. The answer is \\boxed{22}.\n\n"
        "Question: Ben finds 31 and 8 shells. How many shells does he find in all?\n"
        "Answer: 31 + 8 = 39. The answer is \\boxed{39}.\n\nQuestion: {question}\nAnswer:",
        stop=("\n\n", "Question:"),
    ),
}


class Encoding(Protocol):
    @property
    def ids(self) -> list[int]: ...


class AddedToken(Protocol):
    @property
    def content(self) -> str: ...

    @property
    def special(self) -> bool: ...


class Tokenizer(Protocol):
    """The part of `tokenizers.Tokenizer` that is used here."""

    def encode(self, sequence: str, *, add_special_tokens: bool = True) -> Encoding: ...

    def get_added_tokens_decoder(self) -> Mapping[int, AddedToken]: ...


class Speaker(Protocol):
    """The part of a policy that is used here."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def folder(self) -> Path: ...


def make_prompts(config: PromptConfig, problems: Sequence[Problem], speaker: Speaker) -> list[Prompt]:
    """The problems in the words of a config, tokenised. Raises UserError: an unknown template, a chat template that
    is not there or fails, a prompt without tokens."""
    words = words_of(config)
    texts = [words.text.replace("{question}", problem.question) for problem in problems]
    own = config.template == CHAT
    if own:
        for text, problem in zip(texts, problems, strict=True):
            _need_utf8(text, problem)
        texts = chat.render(speaker.folder, texts)
    made = zip(texts, problems, strict=True)
    return [_encoded(text, problem, speaker.tokenizer, config.template, special=not own) for text, problem in made]


def make_stops(config: PromptConfig, speaker: Speaker) -> tuple[frozenset[int], tuple[str, ...]]:
    """What ends a completion beside the end token, as `split_stops` gives it. Raises UserError as `make_prompts`
    does."""
    stop = words_of(config).stop
    if config.template == CHAT:
        added = [token.content for token in speaker.tokenizer.get_added_tokens_decoder().values()]
        stop = tuple(dict.fromkeys([*stop, *chat.turn_end(speaker.folder, added)]))
    return split_stops(stop, speaker.tokenizer)


def words_of(config: PromptConfig) -> Template:
    """The words around a question and what ends an answer, but for what a chat template adds. Raises UserError."""
    if config.template == CHAT or config.text:
        words = Template(config.text or "{question}")
    else:
        words = find(config.template)
    if config.text and config.template in TEMPLATES:
        raise UserError(
            f"prompt.text is given, and prompt.template is '{config.template}', which has words of its own: "
            "leave one out, or set prompt.template to a name of yours"
        )
    where = f"prompt template {config.template}: text" if config.template.endswith(".toml") else "prompt.text"
    if "{{question}}" in words.text:
        raise UserError(f"{where} has {{{{question}}}} in double braces: write {{question}}, nothing else is replaced")
    if "{question}" not in words.text:
        raise UserError(f"{where} has no place for the question: write {{question}} where it belongs")
    if "" in config.stop:
        raise UserError("prompt.stop holds an empty text, which would end every answer: leave it out")
    return replace(words, stop=(*words.stop, *config.stop))


def render(template: str, problem: Problem) -> str:
    """The problem in a template's words. Raises UserError for an unknown template."""
    return find(template).text.replace("{question}", problem.question)


def make_prompt(template: str, problem: Problem, tokenizer: Tokenizer) -> Prompt:
    """A problem in the template of a name, tokenised. Raises UserError for an unknown one or a prompt without
    tokens."""
    return _encoded(render(template, problem), problem, tokenizer, template, special=True)


def _encoded(text: str, problem: Problem, tokenizer: Tokenizer, template: str, special: bool) -> Prompt:
    _need_utf8(text, problem)
    token_ids = list(tokenizer.encode(text, add_special_tokens=special).ids)
    if special and len(token_ids) > 1 and token_ids[0] == token_ids[1]:
        bare = list(tokenizer.encode(text, add_special_tokens=False).ids)
        token_ids = bare if bare[:1] == token_ids[:1] and len(bare) < len(token_ids) else token_ids
    if not token_ids:
        raise UserError(
            f"problem '{problem.id}' in the template '{template}' has no tokens: ask something, or use "
            "another tokenizer"
        )
    return Prompt(problem, text, token_ids)


def split_stops(stop: Sequence[str], tokenizer: Tokenizer) -> tuple[frozenset[int], tuple[str, ...]]:
    """What ends a completion, as (token ids, texts): a stop that is a special token, such as <|im_end|>, is compared
    as a token, because decoded text does not show it."""
    special = {added.content: token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    return frozenset(special[text] for text in stop if text in special), tuple(
        text for text in stop if text not in special
    )


def _need_utf8(text: str, problem: Problem) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"problem '{problem.id}' holds bytes that are not UTF-8 text: write it in UTF-8") from None


def find(template: str) -> Template:
    """The template of that name. Raises UserError with a suggestion if there is none."""
    if template not in TEMPLATES:
        raise unknown("prompt template", template, [*TEMPLATES, CHAT, "FILE.toml"])
    return TEMPLATES[template]
