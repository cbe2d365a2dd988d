"""Prompt templates: a problem in the words that a model is asked with.

Decides: a template is literal text with one `{question}`, which is replaced, not formatted: braces in a question stay.
There is no Jinja: a tokenizer's own chat template is code that comes with a model. The template also says what ends an
answer (`stop`) and where the answer stands (`answer`), because prompt, stop and reward must fit each other; a wrong
template halves a base model's score, and its repair then looks like learning (Understanding R1-Zero-Like Training,
arXiv 2503.20783, sec. 2). Adding one: its row in TEMPLATES.

A prompt is encoded with the special tokens that the tokenizer itself adds (a BOS for Llama, none for Qwen and SmolLM2),
as in pretraining; <|im_start|> and the like in a template become their own tokens. So they would in a question: data
from strangers could end the user's turn. Nothing is done about that: it harms one prompt, not the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from r1v0.errors import UserError, unknown
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
        "The assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
        "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, "
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


def render(template: str, problem: Problem) -> str:
    """The problem in a template's words. Raises UserError for an unknown template."""
    return find(template).text.replace("{question}", problem.question)


def make_prompt(template: str, problem: Problem, tokenizer: Tokenizer) -> Prompt:
    """The rendered and tokenised problem. Raises UserError for an unknown template or a prompt without tokens."""
    text = render(template, problem)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"problem '{problem.id}' holds bytes that are no UTF-8 text: write it in UTF-8") from None
    token_ids = list(tokenizer.encode(text, add_special_tokens=True).ids)
    if not token_ids:
        raise UserError(
            f"problem '{problem.id}' in the template '{template}' has no tokens: ask something, or use another tokenizer"
        )
    return Prompt(problem, text, token_ids)


def split_stops(stop: Sequence[str], tokenizer: Tokenizer) -> tuple[frozenset[int], tuple[str, ...]]:
    """What ends a completion, as (token ids, texts): a stop that is a special token, such as <|im_end|>, is compared as a
    token, because decoded text does not show it."""
    special = {added.content: token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    return frozenset(special[text] for text in stop if text in special), tuple(
        text for text in stop if text not in special
    )


def find(template: str) -> Template:
    """The template of that name. Raises UserError with a suggestion if there is none."""
    if template not in TEMPLATES:
        raise unknown("prompt template", template, TEMPLATES)
    return TEMPLATES[template]
