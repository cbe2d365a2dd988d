"""What a model folder from strangers may ask of us: no more memory than its files have, no file of ours.

Decides: config.json's sizes are believed only as far as the weights' files bear them out (a parameter is at least
one byte there), and that is checked before anything is allocated. A link that leads out of the folder is refused:
its target would be copied into every checkpoint, and from there to wherever the user takes it. The hub's own cache
is made of links, to the `blobs` beside its `snapshots`; those are fine.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from r1v0.base.errors import UserError
from r1v0.models.shape import ModelConfig

DTYPES = ("F64", "F32", "F16", "BF16")
"""Types of weights. Whole numbers and 8-bit floats are quantised: without their scales they are other numbers."""


def parameter_count(config: ModelConfig) -> int:
    """Numbers in the model's weights."""
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    attention = 2 * config.hidden * (q + kv) + (q + 2 * kv if config.qkv_bias else 0)
    norms = 2 * config.hidden + (2 * config.head_dim if config.qk_norm else 0)
    layer = attention + 3 * config.hidden * config.intermediate + norms
    return config.vocab * config.hidden * (1 if config.tied else 2) + config.layers * layer + config.hidden


def check_size(folder: Path, config: ModelConfig, files: Iterable[Path]) -> None:
    """Raise UserError if config.json asks for more parameters than the weights' files have bytes."""
    held = sum(path.stat().st_size for path in files if path.is_file())
    if parameter_count(config) > held:
        raise UserError(
            f"{folder / 'config.json'} asks for {parameter_count(config)} parameters, but the weights have "
            f"{held} bytes: "
            "is the download complete, and are the files of one model?"
        )


def check_links(folder: Path, names: Iterable[str]) -> None:
    """Raise UserError if one of these files of the folder is a link out of it."""
    home = folder.resolve()
    for name in names:
        target = (folder / name).resolve()
        in_cache = home.parent.name == "snapshots" and target.is_relative_to(home.parents[1] / "blobs")
        if (folder / name).is_symlink() and not target.is_relative_to(home) and not in_cache:
            raise UserError(f"{folder / name} is a link out of its folder, to {target}: put the file itself there")


def check_tokenizer(folder: Path, tokenizer: Tokenizer, vocab: int) -> None:
    """Raise UserError if the tokenizer has a token that the model has no embedding for."""
    token, last = max(tokenizer.get_vocab().items(), key=lambda item: item[1], default=("", -1))
    if last >= vocab:
        raise UserError(
            f"{folder / 'tokenizer.json'} has the token {token!r:.40} with number {last}, but config.json's "
            f"vocab_size is {vocab}: "
            "the files are of two models"
        )
