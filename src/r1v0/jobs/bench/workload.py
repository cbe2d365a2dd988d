"""The work that every engine is given: a model, prompts, and how long each completion is to be.

Decides: same model, same prompts, same limits for all. A random model never means to end, so the length of each of its
completions is set beforehand (lognormal: median 90, cut at 256, as answers of a small model are) and every engine is
made to keep to it; the embedded model ends where it likes, and seconds are counted a token.
"""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from r1v0.models.families import parse_config
from r1v0.models.loading import Policy, load, resolve_model, write_weights
from r1v0.models.transformer import Transformer, initialise
from r1v0.sampling.sampler import Request, SamplingSettings
from r1v0.tasks.datasets import load_eval
from r1v0.tasks.prompts import make_prompt
from r1v0.types import Problem, Prompt

EOS = 1
# 5.5 M parameters: small enough for a laptop, large enough that matrix products, not Python, take most of a step.
RANDOM_5M = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 4096, "hidden_size": 256,
    "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
    "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 16384,
    "tie_word_embeddings": True, "use_sliding_window": False, "attention_dropout": 0.0, "initializer_range": 0.02,
    "pad_token_id": 0, "eos_token_id": EOS, "torch_dtype": "float32",
}  # fmt: skip
SEEN = 3  # tokens by which a completion of a random model is recognised: two of 4096^3 are never the same


@dataclass(frozen=True)
class Work:
    """`prompts` [P], and the tokens wanted of each of their completions, `lengths` [P][G]. With `forced` every
    engine is made to stop there; without, completions end by themselves and `lengths` only says how many there are."""

    name: str
    policy: Policy
    prompts: list[Prompt]
    lengths: list[list[int]]
    max_new_tokens: int
    forced: bool

    @property
    def group_size(self) -> int:
        return len(self.lengths[0])

    @property
    def keys(self) -> list[list[int]]:
        """Random keys of the completions, as in training."""
        return [[(i << 20) + sample for sample in range(self.group_size)] for i in range(len(self.prompts))]

    def head(self, prompts: int) -> "Work":
        """The first this many prompts, with answers of a few tokens: enough to warm an engine up."""
        short = [[min(length, 8) for length in row] for row in self.lengths[:prompts]]
        return replace(self, prompts=self.prompts[:prompts], lengths=short, max_new_tokens=8)


def random_model_folder(folder: Path, layers: int = 6, hidden: int = 256, seed: int = 0) -> Path:
    """Write a random model as a Hugging Face folder that r1v0, transformers and TRL load; the folder."""
    raw = {**RANDOM_5M, "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": hidden * 11 // 4}
    model = Transformer(parse_config(raw, "bench"))
    initialise(model, torch.Generator().manual_seed(seed))
    vocab = raw["vocab_size"]
    assert isinstance(vocab, int)
    words = ["<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(3, vocab))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("config", raw), ("generation_config", {"eos_token_id": EOS, "pad_token_id": 0})):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    write_weights(model, folder / "model.safetensors", torch.float32)
    return folder


def random_work(folder: Path, prompts: int = 16, group_size: int = 8, limit: int = 256, seed: int = 0) -> Work:
    """Random prompts of 40 to 100 tokens for a model of `random_model_folder`, and lengths set beforehand."""
    policy = load(folder)
    rng = random.Random(seed)
    texts = [[rng.randrange(3, policy.model.config.vocab) for _ in range(rng.randint(40, 100))] for _ in range(prompts)]
    lengths = [
        [max(SEEN, min(limit, round(math.exp(rng.gauss(math.log(90), 0.7))))) for _ in range(group_size)] for _ in texts
    ]
    return Work("5 M random", policy, [_prompt(i, ids) for i, ids in enumerate(texts)], lengths, limit, forced=True)


def natural_work(model: str, prompts: int = 16, group_size: int = 8, limit: int = 256) -> Work:
    """Countdown problems for a model that ends by itself: a folder, or "tiny"."""
    policy = load(resolve_model(model))
    template = "countdown" if model == "tiny" else "question"
    problems = load_eval("countdown", prompts)
    made = [make_prompt(template, replace(problem, id=str(i)), policy.tokenizer) for i, problem in enumerate(problems)]
    return Work(
        "embedded base" if model == "tiny" else model, policy, made, [[0] * group_size] * prompts, limit, forced=False
    )


def _prompt(index: int, token_ids: list[int]) -> Prompt:
    return Prompt(Problem(str(index), "", "", "bench"), " ".join(f"w{i}" for i in token_ids), token_ids)


def requests(work: Work) -> list[Request]:
    """The sampler's requests."""
    return [Request(prompt.token_ids, keys) for prompt, keys in zip(work.prompts, work.keys, strict=True)]


def sampling(work: Work, slots: int = 128) -> SamplingSettings:
    """The sampler's settings. For one call of `generate`: forced lengths are given out in the order of first sight."""
    if not work.forced:
        return SamplingSettings(1.0, work.max_new_tokens, slots, work.policy.eos_ids)
    every = frozenset(range(work.policy.model.config.vocab))
    return SamplingSettings(
        1.0, work.max_new_tokens, slots, frozenset(), every, LengthStops([n for row in work.lengths for n in row])
    )


class LengthStops:
    """Ends each completion at a length from a list. The sampler shows tokens, not whose they are; so a completion is
    known by its first tokens, which takes one look-up a token (that time is r1v0's own loss)."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.waiting = list(reversed(lengths))
        self.length_of: dict[tuple[int, ...], int] = {}

    def __call__(self, token_ids: Sequence[int]) -> bool:
        if len(token_ids) < SEEN:
            return False
        mark = (token_ids[0], token_ids[1], token_ids[2])
        if mark not in self.length_of:
            self.length_of[mark] = self.waiting.pop()
        return len(token_ids) >= self.length_of[mark]
