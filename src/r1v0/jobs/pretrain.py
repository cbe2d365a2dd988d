"""The embedded base model, made from nothing: tokenizer, a qwen2 of 0.33 M parameters, and its training.

Decides: the base is an ordinary Hugging Face folder, so the run that a laptop does in minutes goes through the code
that trains Qwen2.5-1.5B. It is trained on 8.3 M tokens of tasks/countdown/corpus.py, packed without padding, with Muon
(https://kellerjordan.github.io/posts/muon) on the matrices of the blocks and AdamW on the rest. What is trained is
what the corpus can teach in minutes on two cores: it solves between a fifth and a quarter of problems it never saw.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn

from r1v0.base.errors import UserError
from r1v0.base.interrupts import stoppable
from r1v0.models.attention import packed
from r1v0.models.families import hf_tensors, parse_config
from r1v0.models.loading import write_weights
from r1v0.models.transformer import Transformer, initialise
from r1v0.tasks.countdown.corpus import SPECIAL, VOCABULARY, document

RECIPE = "countdown-3 E"
STEPS = 3300
STEP_TOKENS = 2500
WARMUP_STEPS = 50
CONSTANT_SHARE = 0.4
FINAL_SHARE = 0.02
MUON_LR = 0.02
ADAMW_LR = 3e-3
PAD, EOS = VOCABULARY.index("<pad>"), VOCABULARY.index("<eos>")

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": len(VOCABULARY),
    "hidden_size": 128,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "pad_token_id": PAD,
    "bos_token_id": None,
    "eos_token_id": EOS,
    # What to compute in; the file holds float16 to be small.
    "torch_dtype": "float32",
}
GENERATION_CONFIG = {"do_sample": True, "temperature": 1.0, "pad_token_id": PAD, "eos_token_id": EOS}
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    # For model_type qwen2, transformers 5 puts Qwen2Tokenizer in place of the class named above and so loses our words,
    # unless auto_map is there. No remote code is behind it: without trust_remote_code it is not looked up.
    "auto_map": {"AutoTokenizer": ["transformers.PreTrainedTokenizerFast", "transformers.PreTrainedTokenizerFast"]},
    "pad_token": "<pad>",
    "eos_token": "<eos>",
    "unk_token": "<unk>",
    "model_max_length": 1024,
    "clean_up_tokenization_spaces": False,
}

# (step, steps, tokens so far, loss of the step)
OnProgress = Callable[[int, int, int, float], None]


def pretrain(
    out: Path, seed: int = 0, steps: int = STEPS, threads: int = 0, on_progress: OnProgress | None = None
) -> None:
    """Train a base model and write it to `out` as a Hugging Face folder; nothing is written before it is done.

    `threads` 0 leaves torch's own choice. The result depends on seed, steps, threads and the torch version, which the
    weight file's metadata records. Raises UserError if `out` cannot be written or holds anything, Interrupted after
    Ctrl-C or SIGTERM; `out` is then as it was.
    """
    out = out.expanduser().resolve()
    partial = _start(out)
    try:
        if threads:
            torch.set_num_threads(threads)
        model = new_model(seed)
        with stoppable() as check:

            def told(*progress: Any) -> None:
                check()
                if on_progress:
                    on_progress(*progress)

            tokens, loss = train(model, seed, steps, told)
        metadata = {
            "recipe": RECIPE,
            "seed": seed,
            "steps": steps,
            "tokens": tokens,
            "final_loss": round(loss, 4),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        write_folder(model, partial, {name: str(value) for name, value in metadata.items()})
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        raise _unwritable(out, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def new_model(seed: int) -> Transformer:
    """An untrained model."""
    model = Transformer(parse_config(CONFIG, "pretrain.CONFIG"))
    initialise(model, torch.Generator().manual_seed(seed))
    return model


def train(model: Transformer, seed: int, steps: int, on_progress: OnProgress | None = None) -> tuple[int, float]:
    """Train in place; tokens seen, and the mean loss of the last hundred steps in nats per token."""
    optimizers, parts = _optimizers(model)
    losses: list[float] = []
    seen = 0
    for step, documents in zip(range(1, steps + 1), batches(seed), strict=False):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = group["peak_lr"] * learning_rate_share(step, steps)
        loss = document_loss(model, documents)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        for (_, gradient), part in zip(hf_tensors(model.config, gradients), parts, strict=True):
            part.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
        seen += sum(map(len, documents))
        losses.append(loss.item())
        if on_progress:
            on_progress(step, steps, seen, losses[-1])
    return seen, sum(losses[-100:]) / max(1, len(losses[-100:]))


def batches(seed: int) -> Iterator[list[list[int]]]:
    """The corpus from document 0 on, as token ids, about STEP_TOKENS a batch. Equal lengths lie side by side, for
    `packed`."""
    ids = {token: i for i, token in enumerate(VOCABULARY)}
    index = 0
    while True:
        batch: list[list[int]] = []
        while sum(map(len, batch)) < STEP_TOKENS:
            batch.append([*(ids[token] for token in document(seed, index)), EOS])
            index += 1
        yield sorted(batch, key=len)


def document_loss(model: Transformer, documents: list[list[int]]) -> Tensor:
    """Mean cross entropy of every token but each document's first, in nats."""
    token_ids = torch.tensor([token for tokens in documents for token in tokens])
    positions = torch.cat([torch.arange(len(tokens)) for tokens in documents])
    cu_seqlens = torch.tensor(list(accumulate(map(len, documents), initial=0)))
    logits = model.head(model(token_ids, positions, packed(cu_seqlens)))
    targets = token_ids.roll(-1)
    targets[cu_seqlens[1:] - 1] = -100
    return F.cross_entropy(logits, targets)


def learning_rate_share(step: int, steps: int) -> float:
    """Of the peak rate: linear warm-up, constant to CONSTANT_SHARE of the steps, then linear to FINAL_SHARE. Steps
    from 1."""
    done = max(0.0, step / steps - CONSTANT_SHARE) / (1 - CONSTANT_SHARE)
    return min(1.0, step / WARMUP_STEPS, 1 - done * (1 - FINAL_SHARE))


def _optimizers(model: Transformer) -> tuple[list[torch.optim.Optimizer], list[nn.Parameter]]:
    """Muon and AdamW over views of the fused parameters: Muon makes each matrix orthogonal, and qkv is three of
    them."""
    named = [
        (name, nn.Parameter(view.detach())) for name, view in hf_tensors(model.config, dict(model.named_parameters()))
    ]
    matrices = [part for name, part in named if part.dim() == 2 and ".layers." in name]
    rest = [part for name, part in named if not (part.dim() == 2 and ".layers." in name)]
    muon = torch.optim.Muon([{"params": matrices, "peak_lr": MUON_LR}], lr=MUON_LR, momentum=0.95, weight_decay=0.0)
    adamw = torch.optim.AdamW([{"params": rest, "peak_lr": ADAMW_LR}], lr=ADAMW_LR, betas=(0.9, 0.98), weight_decay=0.0)
    return [muon, adamw], [part for _, part in named]


def write_folder(model: Transformer, folder: Path, metadata: dict[str, str]) -> None:
    """config.json, generation_config.json, the tokenizer's two files, and float16 weights, into an existing folder."""
    texts = {"config": CONFIG, "generation_config": GENERATION_CONFIG, "tokenizer_config": TOKENIZER_CONFIG}
    for name, content in texts.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    make_tokenizer().save(str(folder / "tokenizer.json"))
    write_weights(model, folder / "model.safetensors", torch.float16, metadata)


def make_tokenizer() -> Tokenizer:
    """A token for each word, symbol and whole number; spaces don't count in encoding, and decoding puts readable
    ones."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    words = Regex(r"\\boxed\{|[0-9]+|\w+:?|\S")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(words, behavior="removed", invert=True)
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    around_symbols = Regex(r" (?=[-+*=,)}])|(?<=[-+*=,({]) |^ ")
    spaced = [decoders.Replace(Regex("^"), " "), decoders.Fuse(), decoders.Replace(around_symbols, "")]
    tokenizer.decoder = decoders.Sequence(spaced)
    return tokenizer


def _start(out: Path) -> Path:
    """Refuse an `out` that is taken; the new folder beside it that takes its name at the end."""
    try:
        if out.exists() and not out.is_dir():
            raise UserError(f"base model folder {out} is a file: give the path of a new folder")
        if out.is_dir() and any(out.iterdir()):
            raise UserError(f"base model folder {out} is not empty: give a new folder, or remove it first")
        partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
        partial.mkdir(parents=True)
    except OSError as error:
        raise _unwritable(out, error) from None
    return partial


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(f"base model folder {out} cannot be written ({error.strerror}): give another place")
