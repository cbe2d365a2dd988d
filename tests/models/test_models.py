"""The Transformer against `transformers`: numerics 5, and what a folder may and may not hold."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from r1v0.base.errors import UserError
from r1v0.models.attention import packed
from r1v0.models.families import parse_config, read_otherwise
from r1v0.models.loading import Policy, load, resolve_model, save, tell_once
from r1v0.tasks.math.answers import math
from r1v0.types import Problem

pytestmark = pytest.mark.numeric

SMALL = dict(vocab_size=67, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=256, eos_token_id=[3, 5], initializer_range=0.2)  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32, "rope_theta": 5e5}  # fmt: skip
CONFIGS: dict[str, PretrainedConfig] = {
    "qwen2": Qwen2Config(**SMALL, tie_word_embeddings=False),
    "qwen2-tied": Qwen2Config(
        **SMALL, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1e6}
    ),
    "qwen3": Qwen3Config(**SMALL, head_dim=16, tie_word_embeddings=False),
    "qwen3-tied": Qwen3Config(**SMALL, head_dim=8, tie_word_embeddings=True),
    "llama": LlamaConfig(**SMALL, tie_word_embeddings=False),
    "llama-tied-mha": LlamaConfig(**{**SMALL, "num_key_value_heads": 4}, tie_word_embeddings=True),
    "llama3-rope": LlamaConfig(**SMALL, tie_word_embeddings=False, rope_parameters=LLAMA3),
}


def tokenizer_into(folder: Path) -> None:
    vocabulary = {f"w{i}": i for i in range(SMALL["vocab_size"])}  # type: ignore[call-overload]
    Tokenizer(models.WordLevel(vocabulary, unk_token="w0")).save(str(folder / "tokenizer.json"))


def hf_folder(folder: Path, name: str, **save_options: Any) -> Any:
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(CONFIGS[name])
    with torch.no_grad():
        for parameter in theirs.parameters():  # norms and biases start at 1 and 0, which would hide a mix-up
            parameter += 0.1 * torch.randn_like(parameter)
    theirs.save_pretrained(folder, **save_options)
    tokenizer_into(folder)
    return theirs.eval()


def ours_logits(policy: Policy, rows: list[list[int]]) -> list[torch.Tensor]:
    lengths = [len(row) for row in rows]
    flat = torch.tensor([token for row in rows for token in row])
    positions = torch.cat([torch.arange(n) for n in lengths])
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
    with torch.no_grad():
        logits = policy.model.head(policy.model(flat, positions, packed(cu_seqlens)))
    return list(logits.split(lengths))


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_transformers(name: str, tmp_path: Path) -> None:
    theirs = hf_folder(tmp_path, name)
    rows = [torch.randint(0, 67, (n,)).tolist() for n in (1, 17, 17, 90, 5)]
    for row, mine in zip(rows, ours_logits(load(tmp_path), rows), strict=True):
        with torch.no_grad():
            expected = theirs(torch.tensor([row])).logits[0]
        assert (mine - expected).abs().max() < 1e-4


@pytest.mark.parametrize("name", CONFIGS)
def test_a_saved_policy_is_what_was_loaded_and_transformers_loads_it(name: str, tmp_path: Path) -> None:
    theirs = hf_folder(tmp_path / "a", name)
    (tmp_path / "b").mkdir()
    save(load(tmp_path / "a"), tmp_path / "b")
    before, after = load_file(tmp_path / "a" / "model.safetensors"), load_file(tmp_path / "b" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "b").eval()
    row = torch.randint(0, 67, (1, 40))
    with torch.no_grad():
        assert torch.equal(again(row).logits, theirs(row).logits)


def test_shards_are_read(tmp_path: Path) -> None:
    theirs = hf_folder(tmp_path, "qwen2", max_shard_size="60KB")
    assert not (tmp_path / "model.safetensors").exists()
    row = torch.randint(0, 67, (30,)).tolist()
    with torch.no_grad():
        expected = theirs(torch.tensor([row])).logits[0]
    assert (ours_logits(load(tmp_path), [row])[0] - expected).abs().max() < 1e-4


def test_all_end_tokens_are_found(tmp_path: Path) -> None:
    hf_folder(tmp_path, "qwen2")
    assert load(tmp_path).eos_ids == {3, 5}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7}')
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "w9"}}')
    assert load(tmp_path).eos_ids == {7, 9}


def edit(path: Path, **changes: Any) -> None:
    raw = json.loads(path.read_text())
    raw.update(changes)
    path.write_text(json.dumps(raw))


def drop_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors")


def add_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {**tensors, "model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(2, 2)}, folder / "model.safetensors"
    )


def cut_file(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_eos(folder: Path) -> None:
    edit(folder / "config.json", eos_token_id=None)
    (folder / "generation_config.json").unlink()


DAMAGE: dict[str, tuple[Any, str]] = {
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json"),
    "damaged tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "is not a tokenizer"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no model.safetensors"),
    "pickle": (pickle_only, "pickled weights are not read"),
    "half a file": (cut_file, "not a whole safetensors file"),
    "a tensor is missing": (drop_tensor, "lacks the tensor model.layers.1.mlp.up_proj.weight"),
    "a tensor is left over": (add_tensor, "lora_A.weight, which this model has no place for"),
    "other shape": (lambda f: edit(f / "config.json", intermediate_size=96), "config.json asks for"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "expected a JSON object"),
    "config is torn": (lambda f: (f / "config.json").write_text('{"model_ty'), "cannot be read as JSON"),
    "unknown family": (lambda f: edit(f / "config.json", model_type="gpt2"), "model_type is 'gpt2'"),
    "text for a number": (lambda f: edit(f / "config.json", hidden_size="48"), "expected a positive number"),
    "yarn": (
        lambda f: edit(f / "config.json", rope_parameters={"rope_type": "yarn"}),
        "rope type 'yarn' is not supported",
    ),
    "sliding window": (
        lambda f: edit(f / "config.json", use_sliding_window=True),
        "use_sliding_window is not supported",
    ),
    "quantised": (
        lambda f: edit(f / "config.json", quantization_config={"bits": 4}),
        "quantization_config is not supported",
    ),
    "experts": (
        lambda f: edit(f / "config.json", num_experts=128),
        "num_experts (a mixture of experts) is not supported",
    ),
    "layers without rotation": (lambda f: edit(f / "config.json", no_rope_layers=[1, 0]), "no_rope_layers (layers"),
    "windows by layer": (
        lambda f: edit(f / "config.json", layer_types=["full_attention", "sliding_attention"]),
        "layer_types",
    ),
    "capped logits": (
        lambda f: edit(f / "config.json", final_logit_softcapping=30.0),
        "final_logit_softcapping (values",
    ),
    "scaled embeddings": (lambda f: edit(f / "config.json", embedding_multiplier=12), "embedding_multiplier (values"),
    "rotated in part": (lambda f: edit(f / "config.json", partial_rotary_factor=0.5), "partial_rotary_factor (heads"),
    "no end token": (no_eos, "names no end token"),
    "end token too large": (
        lambda f: (f / "generation_config.json").write_text('{"eos_token_id": 67}'),
        "outside the vocabulary",
    ),
    "tied, with another head": (
        lambda f: edit(f / "config.json", tie_word_embeddings=True),
        "differs from the embeddings",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_one_clear_line(damage: str, tmp_path: Path) -> None:
    hf_folder(tmp_path, "qwen2")
    hurt, expected = DAMAGE[damage]
    hurt(tmp_path)
    with pytest.raises(UserError) as caught:
        load(tmp_path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


RELATIVES = ["qwen3_moe", "qwen2_moe", "smollm3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "mixtral", "mistral",
             "qwen2_vl", "qwen2_5_vl", "qwen3_next", "llama4", "mllama", "llama4_text", "Qwen2", "code_llama", "", None, 3]  # fmt: skip


@pytest.mark.parametrize("family", RELATIVES)
def test_a_relative_is_not_taken_for_its_family(family: Any) -> None:
    """A hint "did you mean 'qwen3'" would make a user rename a mixture of experts."""
    with pytest.raises(UserError) as caught:
        parse_config({"model_type": family, "hidden_size": 48}, "config.json")
    assert str(caught.value).startswith(
        f"config.json: model_type is {family!r}, which r1v0 does not load: use a model of"
    )
    assert "did you mean" not in str(caught.value)


def test_a_model_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "file.bin").touch()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for name, expected in {
        str(tmp_path): "without config.json",
        str(tmp_path / "file.bin"): "is a file",
        str(tmp_path / "missing"): "does not exist",
        str(tmp_path / "run"): "without a checkpoint",
    }.items():
        with pytest.raises(UserError, match=expected):
            resolve_model(name)


def test_a_shard_outside_the_folder_is_refused(tmp_path: Path) -> None:
    hf_folder(tmp_path, "qwen2", max_shard_size="60KB")
    index = tmp_path / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    raw["weight_map"]["lm_head.weight"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(raw))
    with pytest.raises(UserError, match="outside its folder"):
        load(tmp_path)


def test_marks_that_a_reward_reads_are_in_the_text_though_they_are_special_tokens() -> None:
    """A right <answer> 2 </answer> would score 0 if its tags were left out; control tokens are."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "2": 1, "so": 2}, unk_token="<unk>"))
    words = ["<s>", "</s>", "<|im_end|>", "<pad>", "<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "<mine>"]
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in words])
    tokenizer.add_tokens([AddedToken("}", special=False)])
    at = tokenizer.token_to_id

    def decoded(text: str) -> str:
        return Policy(None, tokenizer, frozenset(), Path()).decode([at(word) or 0 for word in text.split()])  # type: ignore[arg-type]

    assert decoded("<s> so <answer> 2 </answer> </s> <|im_end|> <pad>") == "so <answer> 2 </answer>"
    assert decoded("<think> so </think> \\boxed{ 2 } <mine>") == "<think> so </think> \\boxed{ 2 }"
    right = Problem("p", "", "2", "")
    assert math(right, decoded("<answer> 2 </answer> <|im_end|>"), True).correct
    assert math(right, decoded("\\boxed{ 2 }"), True).correct


# Sizes of heads, and who reads them how


def folder_of(folder: Path, theirs: Any, **changes: Any) -> None:
    """A random model, written by transformers; `changes` to its config.json (None leaves a key out)."""
    theirs.save_pretrained(folder)
    tokenizer_into(folder)
    raw = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))


OTHER_HEADS = {
    "qwen2, 4 heads of 16 in 48": (Qwen2Config(**SMALL, head_dim=16), "vLLM takes hidden_size / num_attention_heads = 12"),
    "qwen2, 4 heads of 8 in 48": (Qwen2Config(**SMALL, head_dim=8), "vLLM takes hidden_size / num_attention_heads = 12"),
    "qwen2, 4 heads of 12 in 48": (Qwen2Config(**SMALL, head_dim=12), None),
    "qwen2, no head_dim": (Qwen2Config(**SMALL), None),
    "qwen3, 4 heads of 16 in 48": (Qwen3Config(**SMALL, head_dim=16), None),
    "llama, 4 heads of 16 in 48": (LlamaConfig(**SMALL, head_dim=16), None),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER_HEADS)
def test_saving_says_what_another_program_would_read_otherwise(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Loading is as before, and what is saved is what was loaded; the line is for those who take it elsewhere."""
    config, expected = OTHER_HEADS[case]
    theirs = AutoModelForCausalLM.from_config(config).eval()
    folder_of(tmp_path / "a", theirs)
    tell_once.cache_clear()
    capsys.readouterr()
    policy = load(tmp_path / "a")
    assert capsys.readouterr().err == ""
    for folder in ("b", "c"):
        (tmp_path / folder).mkdir()
        save(policy, tmp_path / folder)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (expected is not None)
    assert all(str(expected) in line for line in lines)
    row = torch.randint(0, 67, (1, 40))
    with torch.no_grad():
        assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "b").eval()(row).logits, theirs(row).logits)


def test_heads_that_do_not_divide_a_llama_are_named(tmp_path: Path) -> None:
    """3 heads of 16 in a width of 50, which transformers refuses: so there is no folder of it to load."""
    raw = {**LlamaConfig(**SMALL).to_dict(), "hidden_size": 50, "num_attention_heads": 3, "num_key_value_heads": 1}
    raw["head_dim"] = 16
    found = read_otherwise(raw, parse_config(raw, "here"))
    assert found is not None
    assert "hidden_size is 50, which transformers 5 and vLLM refuse" in found
    with pytest.raises(Exception, match="not a multiple of the number of attention heads"):
        LlamaConfig(**raw)


@pytest.mark.parametrize(("family", "size"), [("qwen2", 12), ("llama", 12), ("qwen3", 128)])
@pytest.mark.parametrize("absent", ["missing", "null"])
def test_the_size_of_heads_is_written_where_it_was_not(absent: str, family: str, size: int, tmp_path: Path) -> None:
    """transformers 5 fails on a null in qwen2 and qwen3, and takes 128 for a qwen3 without the key."""
    config: PretrainedConfig = {
        "qwen2": Qwen2Config(**SMALL), "llama": LlamaConfig(**SMALL), "qwen3": Qwen3Config(**SMALL, head_dim=128)
    }[family]  # fmt: skip
    theirs = AutoModelForCausalLM.from_config(config).eval()
    folder_of(tmp_path / "a", theirs, head_dim=None)
    if absent == "null":
        edit(tmp_path / "a" / "config.json", head_dim=None)
    (tmp_path / "b").mkdir()
    save(load(tmp_path / "a"), tmp_path / "b")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["head_dim"] == size
    row = torch.randint(0, 67, (1, 9))
    with torch.no_grad():
        assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "b").eval()(row).logits, theirs(row).logits)
