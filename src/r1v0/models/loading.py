"""Models come from Hugging Face folders and go back to them.

Decides: a model is config.json + safetensors (one file or shards) + tokenizer.json; no pickle, no remote code, sizes
checked against the config before anything is allocated by a file's word. Every tensor must be there, of the right
shape, and nothing may be left over: a silently random or dropped tensor is the commonest way to a wrong number.
Weights are float32 in memory unless asked otherwise: at small learning rates bfloat16 loses nearly every update.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from r1v0.base import hub
from r1v0.base.errors import UserError
from r1v0.base.notes import to_stderr
from r1v0.base.reading import MAX_JSON_BYTES, read_json
from r1v0.models.checks import DTYPES, check_links, check_size, check_tokenizer
from r1v0.models.families import hf_tensors, parse_config, read_otherwise
from r1v0.models.lora import deltas, merged, save_adapter
from r1v0.models.shape import inverse_frequencies
from r1v0.models.transformer import Transformer
from r1v0.runs.manifest import newest_whole
from r1v0.runs.runlog import CHECKPOINTS

TINY = Path(__file__).parent.parent / "assets" / "tiny"
_TAG = re.compile(r"</?([A-Za-z][\w-]*)>")
TEXT_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
)
"""what goes with the weights wherever they go, where a model has it"""

tell_once = cache(to_stderr)


@dataclass(frozen=True)
class Policy:
    """A model with what it takes to speak: `folder` is where its config and tokenizer files are."""

    model: Transformer
    tokenizer: Tokenizer
    eos_ids: frozenset[int]
    folder: Path

    @property
    def device(self) -> torch.device:
        return self.model.norm.device

    def decode(self, token_ids: list[int]) -> str:
        """The text of tokens without the tokenizer's control tokens; marks that a reward reads, such as <answer>,
        stay."""
        hidden = hidden_tokens(self.tokenizer)
        return str(self.tokenizer.decode([i for i in token_ids if i not in hidden], skip_special_tokens=False))


@cache
def hidden_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    """The tokens that a completion's text leaves out: the tokenizer's special ones. Those that a text is read by stay:
    tags that open and close (<think>, <answer>, one's own; <s> and </s> are not tags), \\boxed and ####. Left out, they
    would make a right answer in tags a wrong one, in silence."""
    added = tokenizer.get_added_tokens_decoder()
    words = {token.content.strip() for token in added.values()}

    def is_read(word: str) -> bool:
        tag = _TAG.fullmatch(word)
        paired = tag is not None and tag[1] != "s" and {f"<{tag[1]}>", f"</{tag[1]}>"} <= words
        return paired or word.startswith(("\\boxed", "\\fbox", "####"))

    return frozenset(i for i, token in added.items() if token.special and not is_read(token.content.strip()))


def resolve_model(name: str) -> Path:
    """The folder of "tiny", a Hugging Face folder, a run folder (its newest checkpoint) or a hub id (downloaded).

    Raises UserError if it is none of these.
    """
    if name == "tiny":
        return TINY
    if not name.strip():
        raise UserError("model is empty: give a folder, a run folder, a hub id like Qwen/Qwen2.5-1.5B, or 'tiny'")
    path = Path(name).expanduser()
    if path.is_dir():
        if (path / CHECKPOINTS).is_dir():
            newest = newest_whole(path, half_way=False)
            if newest is None:
                raise UserError(
                    f"model '{name}' is a run folder without a checkpoint: let the run reach one, or name another model"
                )
            return newest
        if not (path / "config.json").is_file():
            raise UserError(
                f"model '{name}' is a folder without config.json: expected a Hugging Face model folder or a run folder"
            )
        return path
    if path.exists():
        raise UserError(f"model '{name}' is a file: expected the Hugging Face folder that holds config.json")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise UserError(
            f"model '{name}' does not exist: give a folder, a run folder, a hub id like Qwen/Qwen2.5-1.5B, or 'tiny'"
        )
    return _download(name)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        told = ["README.md", "LICENSE*", "NOTICE"]  # whose licence the model has
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja", *told]))
    except Exception as error:  # of the hub's own classes, of httpx or requests, of the disk
        raise hub.model_failed(name, error) from None


def load(folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Policy:
    """Load a Hugging Face folder. Raises UserError where it is not one that we can read exactly."""
    check_links(folder, ("config.json", *TEXT_FILES))
    config = parse_config(read_json(folder / "config.json"), str(folder / "config.json"))
    check_size(folder, config, _weight_files(folder))
    with torch.device(device):
        model = Transformer(config).to(dtype)
    model.frequencies = inverse_frequencies(config).to(device)
    read_weights(folder, model)
    tokenizer = _read_tokenizer(folder)
    check_tokenizer(folder, tokenizer, config.vocab)
    eos_ids = _eos_ids(folder, tokenizer)
    if max(eos_ids) >= config.vocab:
        raise UserError(
            f"{folder}: end token {max(eos_ids)} is outside the vocabulary of {config.vocab}: fix "
            "generation_config.json"
        )
    return Policy(model.eval(), tokenizer, eos_ids, folder)


def save(
    policy: Policy, folder: Path, metadata: Mapping[str, str] | None = None, dtype: torch.dtype | None = None
) -> None:
    """Write the policy into an existing empty folder as `transformers` and vLLM load it.

    Adapters are merged into the weights, and written once more by themselves into `folder/adapter`, as PEFT loads them.
    One line on stderr, once a process, names a shape that one of them reads otherwise than we do.
    """
    raw = read_json(policy.folder / "config.json")
    dtype = dtype or policy.model.norm.dtype
    for old in ("torch_dtype", "dtype"):
        raw.pop(old, None)
    raw["dtype"] = raw["torch_dtype"] = str(dtype).removeprefix("torch.")
    # Where it is missing or null, programs differ: some take 128 for a qwen3 model, some fail.
    raw["head_dim"] = policy.model.config.head_dim
    if said := read_otherwise(raw, policy.model.config):
        tell_once(f"{policy.folder / 'config.json'}: {said}")
    (folder / "config.json").write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
    for name in TEXT_FILES:
        if (policy.folder / name).is_file():
            shutil.copyfile(policy.folder / name, folder / name)
    write_weights(policy.model, folder / "model.safetensors", dtype, metadata)
    save_adapter(policy.model, folder / "adapter")


def write_weights(
    model: Transformer, path: Path, dtype: torch.dtype, metadata: Mapping[str, str] | None = None
) -> None:
    """One safetensors file with Hugging Face's names."""
    adapters = deltas(model)
    tensors = {
        name: merged(view.detach(), adapters.get(name)).detach().to("cpu", dtype).clone()
        for name, view in hf_tensors(model.config, dict(model.named_parameters()))
    }
    save_file(tensors, path, metadata={"format": "pt", **(metadata or {})})
    path.chmod(0o644)  # safetensors leaves a file that only its owner can read


def read_weights(folder: Path, model: Transformer) -> None:
    """Fill a model from a folder's safetensors files, in the model's own type. Raises UserError where they do not
    fit."""
    wanted = dict(hf_tensors(model.config, dict(model.named_parameters())))
    seen: set[str] = set()
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (a safetensors file cannot be iterated)
                    if name in wanted:
                        _copy(file, name, wanted[name], path)
                        seen.add(name)
                    elif name == "lm_head.weight":
                        _check_tied(file, wanted["model.embed_tokens.weight"], path)
                    elif not name.endswith("rotary_emb.inv_freq"):
                        raise UserError(
                            f"{path} holds the tensor {name}, which this model has no place for: is it an "
                            "adapter or another architecture?"
                        )
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path} is not a whole safetensors file ({str(error)[:80]}): download or save the model again"
            ) from None
    missing = sorted(wanted.keys() - seen)
    if missing:
        raise UserError(
            f"{folder} lacks the tensor {missing[0]} and {len(missing) - 1} more: is the download complete?"
        )


def _weight_files(folder: Path) -> list[Path]:
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise UserError(
            f"{folder} holds no model.safetensors: pickled weights are not read, convert them with "
            "transformers' save_pretrained"
        )
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"{index} has no weight_map: download or save the model again")
    names = sorted({str(name) for name in shards.values()})
    if any("/" in name or "\\" in name or not name.endswith(".safetensors") for name in names):
        raise UserError(f"{index} names a shard outside its folder: expected plain .safetensors file names")
    return [folder / name for name in names]


def _copy(file: Any, name: str, into: Tensor, path: Path) -> None:
    stored = file.get_slice(name)
    shape = tuple(stored.get_shape())
    if stored.get_dtype() not in DTYPES:
        raise UserError(
            f"{path}: {name} has the type {stored.get_dtype()}: expected one of {', '.join(DTYPES)}; "
            "quantised weights are not read"
        )
    if shape != tuple(into.shape):
        raise UserError(
            f"{path}: {name} has shape {list(shape)}, config.json asks for {list(into.shape)}: the files are "
            "of two models"
        )
    with torch.no_grad():
        into.copy_(file.get_tensor(name))


def _check_tied(file: Any, embedding: Tensor, path: Path) -> None:
    """A head beside tied embeddings must be the embeddings: a separately trained one would silently be lost."""
    head = file.get_tensor("lm_head.weight")
    if head.shape != embedding.shape or not torch.equal(
        head.to(embedding), file.get_tensor("model.embed_tokens.weight").to(embedding)
    ):
        raise UserError(
            f"{path} holds an lm_head that differs from the embeddings, but config.json ties them: set "
            "tie_word_embeddings to false"
        )


def _read_tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no tokenizer.json: save a fast tokenizer with transformers' save_pretrained")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UserError(f"{path} has {path.stat().st_size} bytes: expected a tokenizer of at most {MAX_JSON_BYTES}")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for a damaged file
        raise UserError(f"{path} is not a tokenizer ({str(error)[:80]}): download or save it again") from None


def _eos_ids(folder: Path, tokenizer: Tokenizer) -> frozenset[int]:
    """All end tokens: generation_config.json, else config.json; and the tokenizer's own."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        value = read_json(folder / name).get("eos_token_id") if (folder / name).is_file() else None
        ids = value if isinstance(value, list) else [value]
        found |= {i for i in ids if isinstance(i, int) and not isinstance(i, bool) and i >= 0}
        if found:
            break
    if (folder / "tokenizer_config.json").is_file():
        token = read_json(folder / "tokenizer_config.json").get("eos_token")
        token = token.get("content") if isinstance(token, dict) else token
        own = tokenizer.token_to_id(token) if isinstance(token, str) else None
        found |= {own} if own is not None else set()
    if not found:
        raise UserError(
            f"{folder} names no end token: set eos_token_id in generation_config.json, or completions could never end"
        )
    return frozenset(found)
