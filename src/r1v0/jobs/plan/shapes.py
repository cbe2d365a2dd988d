"""The shape of a model without its weights, and what can be counted from it.

Decides: the shape is read from config.json, of a folder, of the newest checkpoint of a run, or of a hub model that
is in the cache. For the models that the presets and their users name there is a table, so that a plan needs no
network; for any other hub id its config.json alone is fetched. The plan says which it was.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from r1v0.base import hub
from r1v0.base.errors import UserError
from r1v0.base.reading import read_json
from r1v0.models.families import parse_config
from r1v0.models.shape import ModelConfig
from r1v0.runs.manifest import checkpoints_in

TINY = Path(__file__).parents[2] / "assets" / "tiny"
MAX_BYTES = 1 << 20

# family, vocabulary, hidden, intermediate, layers, heads, KV heads, head size, tied embeddings. Source: their
# config.json.
KNOWN = {
    "qwen2.5-0.5b": ("qwen2", 151936, 896, 4864, 24, 14, 2, 64, True),
    "qwen2.5-1.5b": ("qwen2", 151936, 1536, 8960, 28, 12, 2, 128, True),
    "qwen2.5-3b": ("qwen2", 151936, 2048, 11008, 36, 16, 2, 128, True),
    "qwen2.5-7b": ("qwen2", 152064, 3584, 18944, 28, 28, 4, 128, False),
    "qwen3-0.6b": ("qwen3", 151936, 1024, 3072, 28, 16, 8, 128, True),
    "qwen3-1.7b": ("qwen3", 151936, 2048, 6144, 28, 16, 8, 128, True),
    "qwen3-4b": ("qwen3", 151936, 2560, 9728, 36, 32, 8, 128, True),
    "qwen3-8b": ("qwen3", 151936, 4096, 12288, 36, 32, 8, 128, False),
    "llama-3.2-1b": ("llama", 128256, 2048, 8192, 16, 32, 8, 64, True),
    "llama-3.2-3b": ("llama", 128256, 3072, 8192, 28, 24, 8, 128, True),
    "llama-3.1-8b": ("llama", 128256, 4096, 14336, 32, 32, 8, 128, False),
    "smollm2-135m": ("llama", 49152, 576, 1536, 30, 9, 3, 64, True),
    "smollm2-360m": ("llama", 49152, 960, 2560, 32, 15, 5, 64, True),
    "smollm2-1.7b": ("llama", 49152, 2048, 8192, 24, 32, 32, 64, True),
}


@dataclass(frozen=True)
class Shape:
    """`source` says where `config` was read."""

    config: ModelConfig
    source: str

    @property
    def matrices(self) -> int:
        """Weights of the linear layers of all blocks."""
        c = self.config
        q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
        return c.layers * c.hidden * (2 * q + 2 * kv + 3 * c.intermediate)

    @property
    def embedding(self) -> int:
        """Weights of the embeddings, or of the head."""
        return self.config.vocab * self.config.hidden

    @property
    def parameters(self) -> int:
        """All weights."""
        c = self.config
        q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
        vectors = 2 * c.hidden + (q + 2 * kv if c.qkv_bias else 0) + (2 * c.head_dim if c.qk_norm else 0)
        return self.matrices + self.embedding * (1 if c.tied else 2) + c.layers * vectors + c.hidden

    @property
    def largest(self) -> int:
        """Weights of the largest single matrix."""
        return max(self.embedding, 2 * self.config.intermediate * self.config.hidden)

    def adapters(self, rank: int) -> int:
        """Weights of LoRA adapters of this rank on q, k, v, o, gate, up and down of every block."""
        c = self.config
        q, kv, h, f = c.heads * c.head_dim, c.kv_heads * c.head_dim, c.hidden, c.intermediate
        pairs = ((h, q), (h, kv), (h, kv), (q, h), (h, f), (h, f), (f, h))
        return c.layers * rank * sum(a + b for a, b in pairs)


def find_shape(name: str) -> Shape:
    """The shape of "tiny", a model folder, a run folder, or a hub model. Raises UserError."""
    if name == "tiny":
        return _read(TINY / "config.json", "the embedded model")
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return _read(folder / "config.json", f"{folder / 'config.json'}")
    saved = [path for path in checkpoints_in(folder) if (path / "config.json").is_file()]
    if saved:
        return _read(saved[-1] / "config.json", f"{saved[-1]}")
    if folder.exists():
        raise UserError(f"model '{name}' holds no config.json: expected a Hugging Face model folder or a run folder")
    is_hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not name.startswith(".")
    if is_hub_id and (cached := _cached(name)) is not None:
        return _read(cached, "the hub's config.json, in the cache")
    known = KNOWN.get(_stem(name))
    if known is not None:
        return Shape(_from_table(known), f"the built-in table ({_stem(name)})")
    if not is_hub_id:
        raise UserError(
            f"model '{name}' does not exist: give a folder, a run folder, a hub id like Qwen/Qwen2.5-1.5B, or 'tiny'"
        )
    return _read(_fetched(name), "the hub's config.json, just fetched")


def _stem(name: str) -> str:
    """ "Qwen/Qwen2.5-Math-1.5B-Instruct" -> "qwen2.5-1.5b": variants of a model have its shape."""
    return re.sub(r"-(math|instruct|base|coder)\b", "", name.rpartition("/")[2].lower())


def _from_table(row: tuple[str, int, int, int, int, int, int, int, bool]) -> ModelConfig:
    names = ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "head_dim", "tie_word_embeddings")  # fmt: skip
    return parse_config(dict(zip(names, row, strict=True)), "the built-in table")


def _read(path: Path, source: str) -> Shape:
    return Shape(parse_config(read_json(path, MAX_BYTES), str(path)), source)


def _cached(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found) if isinstance(found, str) else None


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["config.json"])) / "config.json"
    except Exception as error:  # as in models/loading.py
        raise hub.model_failed(name, error) from None
