"""Model families: what config.json says, and which tensor of the checkpoint is which row of which parameter.

Decides: qwen2 (Qwen2, Qwen2.5, Qwen2.5-Math), qwen3 and llama (Llama 3.x, SmolLM2) are one architecture with flags.
The flags are read from config.json; what the Transformer does not do (sliding windows, other rope types, quantised
weights) is refused, never ignored. A checkpoint's names are a table, not code: `hf_tensors` maps each to a view of
our parameter, so that loading and saving are exact copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from r1v0.base.errors import UserError
from r1v0.models.shape import Llama3Rope, ModelConfig

if TYPE_CHECKING:
    from torch import Tensor  # `r1v0 plan` reads shapes without loading torch

# model_type -> (bias on q, k, v; RMSNorm on each head's q and k). None: config.json's attention_bias decides.
FAMILIES: dict[str, tuple[bool | None, bool]] = {
    "qwen2": (True, False),
    "qwen3": (None, True),
    "llama": (None, False),
}


MAX_LAYERS = 1000
"""Llama 3.1 405B has 126; each is an object in memory before any weight is read."""


def parse_config(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """Read a Hugging Face config.json. Raises UserError for what is missing, of a wrong type or not supported."""
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        # No "did you mean": a name that is close (qwen3_moe, smollm3) is another architecture, which would load
        # wrongly.
        raise UserError(
            f"{where}: model_type is {family!r:.80}, which r1v0 does not load: use a model of the families "
            f"{', '.join(FAMILIES)}; another name in config.json would only load wrong numbers"
        )

    def number(key: str, default: float | None = None, source: Mapping[str, Any] = raw) -> Any:
        value = source.get(key)
        value = default if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1 << 40:
            raise UserError(f"{where}: {key} is {value!r}: expected a positive number")
        return value

    def whole(key: str, default: int | None = None) -> int:
        value = number(key, default)
        if not isinstance(value, int):
            raise UserError(f"{where}: {key} is {value!r}: expected a whole number")
        return value

    def refuse(condition: object, what: str) -> None:
        if condition:
            raise UserError(f"{where}: {what} is not supported: use a checkpoint without it")

    # transformers 5 writes rope_parameters, older ones rope_theta and rope_scaling.
    rope = {**_section(raw, "rope_scaling", where), **_section(raw, "rope_parameters", where)}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    refuse(rope_type not in ("default", "llama3"), f"rope type {rope_type!r}")
    refuse(raw.get("hidden_act", "silu") != "silu", f"hidden_act {raw.get('hidden_act')!r}")
    refuse(raw.get("use_sliding_window"), "use_sliding_window")
    refuse(raw.get("quantization_config"), "quantization_config")
    refuse(raw.get("mlp_bias"), "mlp_bias")
    for key, what in _relatives(raw, rope):
        refuse(True, f"{key} ({what})")
    bias, qk_norm = FAMILIES[family]
    refuse(bias is None and raw.get("attention_bias"), "attention_bias")
    heads = whole("num_attention_heads")
    config = ModelConfig(
        vocab=whole("vocab_size"),
        hidden=whole("hidden_size"),
        intermediate=whole("intermediate_size"),
        layers=whole("num_hidden_layers"),
        heads=heads,
        kv_heads=whole("num_key_value_heads", heads),
        head_dim=whole("head_dim", 128 if family == "qwen3" else whole("hidden_size") // heads),
        norm_eps=number("rms_norm_eps", 1e-6),
        rope_theta=float(number("rope_theta", 10000.0, rope if rope.get("rope_theta") is not None else raw)),
        max_positions=whole("max_position_embeddings", 32768 if family != "llama" else 2048),
        tied=raw.get("tie_word_embeddings", False) is True,
        qkv_bias=bool(bias),
        qk_norm=qk_norm,
        rope_scaling=_llama3_rope(rope, where) if rope_type == "llama3" else None,
    )
    _check(config, where)
    return config


def _check(config: ModelConfig, where: str) -> None:
    if config.layers > MAX_LAYERS:
        raise UserError(f"{where}: num_hidden_layers is {config.layers}: expected at most {MAX_LAYERS}")
    if config.heads % config.kv_heads or config.head_dim % 2:
        raise UserError(
            f"{where}: {config.heads} heads, {config.kv_heads} KV heads of {config.head_dim}: expected a "
            "multiple, and even"
        )


def _relatives(raw: Mapping[str, Any], rope: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys by which relatives of our families differ, also where someone renamed the model_type: (key, what it asks
    for)."""
    for key in ("num_experts", "num_local_experts", "n_routed_experts"):
        if raw.get(key):
            yield key, "a mixture of experts"
    for key, harmless in (("no_rope_layers", 1), ("layer_types", "full_attention")):
        value = raw.get(key)
        if isinstance(value, list) and any(entry != harmless for entry in value):
            yield key, "layers that attend in another way"
    for key in ("attn_logit_softcapping", "final_logit_softcapping", "clip_qkv"):
        if raw.get(key):
            yield key, "values that are capped"
    for key in ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling"):
        if raw.get(key, 1) not in (1, None):
            yield key, "values that are scaled"
    if rope.get("partial_rotary_factor", raw.get("partial_rotary_factor", 1)) not in (1, None):
        yield "partial_rotary_factor", "heads that are rotated in part"


def _section(raw: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    """An object inside config.json; empty where it is missing or null."""
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: {key} is {value!r:.80}: expected an object")
    return value


def _llama3_rope(rope: Mapping[str, Any], where: str) -> Llama3Rope:
    try:
        factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
        found = Llama3Rope(factor, low, high, int(rope["original_max_position_embeddings"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: rope_scaling is incomplete ({error}): expected Llama 3's four numbers") from None
    if not (
        all(0 < value < 1 << 40 for value in (factor, low, high, found.original_max_positions))
        and found.low_freq_factor < found.high_freq_factor
    ):
        raise UserError(f"{where}: rope_scaling is {found}: expected positive numbers, low_freq_factor the smaller one")
    return found


def read_otherwise(raw: Mapping[str, Any], config: ModelConfig) -> str | None:
    """What another program makes of a config.json that we read as `config`; None where they agree with us.

    Sources: vLLM 0.32, models/qwen2.py (its llama and qwen3 take head_dim); transformers 5, configuration_llama.py.
    """
    family, plain = raw.get("model_type"), config.hidden // config.heads
    if family == "qwen2" and config.head_dim != plain:
        return (
            f"head_dim is {config.head_dim}, but vLLM takes hidden_size / num_attention_heads = {plain} for a "
            "qwen2 model "
            "and cuts its weights without a word: read this folder with transformers"
        )
    if family == "llama" and config.hidden % config.heads:
        return (
            f"hidden_size is {config.hidden}, which transformers 5 and vLLM refuse for a llama model of {config.heads} "
            "heads: it must be a multiple of them"
        )
    return None


def hf_tensors(config: ModelConfig, parameters: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Pairs (Hugging Face name, view of our parameter). Fused parameters are cut into rows, which are contiguous."""
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    yield "model.embed_tokens.weight", parameters["embed.weight"]
    for i in range(config.layers):
        theirs, ours = f"model.layers.{i}.", f"layers.{i}."
        yield theirs + "input_layernorm.weight", parameters[ours + "attention_norm"]
        yield theirs + "post_attention_layernorm.weight", parameters[ours + "mlp_norm"]
        for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
            fused = parameters[f"{ours}qkv.{kind}"]
            yield f"{theirs}self_attn.q_proj.{kind}", fused[:q]
            yield f"{theirs}self_attn.k_proj.{kind}", fused[q : q + kv]
            yield f"{theirs}self_attn.v_proj.{kind}", fused[q + kv :]
        if config.qk_norm:
            yield theirs + "self_attn.q_norm.weight", parameters[ours + "q_norm"]
            yield theirs + "self_attn.k_norm.weight", parameters[ours + "k_norm"]
        yield theirs + "self_attn.o_proj.weight", parameters[ours + "out.weight"]
        gate_up = parameters[ours + "gate_up.weight"]
        yield theirs + "mlp.gate_proj.weight", gate_up[: config.intermediate]
        yield theirs + "mlp.up_proj.weight", gate_up[config.intermediate :]
        yield theirs + "mlp.down_proj.weight", parameters[ours + "down.weight"]
    yield "model.norm.weight", parameters["norm"]
    if not config.tied:
        yield "lm_head.weight", parameters["lm_head"]
