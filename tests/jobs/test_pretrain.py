"""The base model: tokenizer, training, and the one that is shipped."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import nn

from r1v0.base.errors import UserError
from r1v0.jobs import pretrain
from r1v0.models.attention import packed
from r1v0.models.families import hf_tensors
from r1v0.models.loading import TINY, load
from r1v0.sampling.sampler import Request, SamplingSettings, generate
from r1v0.tasks.countdown import problems as task
from r1v0.tasks.countdown.corpus import VOCABULARY, document
from r1v0.tasks.countdown.reward import countdown
from r1v0.tasks.prompts import make_prompt

SPACED = "Q: 3 7 4 target 17 A: 3 * 7 = 21 , 21 - 4 = 17 vs 17 yes wait check so \\boxed{ ( 3 * 7 ) - 4 }"
DENSE = "Q: 3 7 4 target 17 A: 3*7=21,21-4=17 vs 17 yes wait check so \\boxed{(3*7)-4}"


@pytest.fixture(scope="module")
def shipped() -> Tokenizer:
    return Tokenizer.from_file(str(TINY / "tokenizer.json"))


# The tokenizer


def test_spaces_do_not_count_in_encoding_and_decoding_writes_readable_ones(shipped: Tokenizer) -> None:
    encoding = shipped.encode(DENSE)
    assert encoding.tokens == SPACED.split()
    assert shipped.encode(SPACED).ids == encoding.ids
    assert shipped.decode(encoding.ids) == DENSE


def test_every_document_makes_the_round_trip(shipped: Tokenizer) -> None:
    for index in range(300):
        tokens = document(0, index)
        ids = shipped.encode(" ".join(tokens)).ids
        assert ids == [VOCABULARY.index(token) for token in tokens]
        text = shipped.decode([*ids, pretrain.EOS], skip_special_tokens=True)
        assert "<eos>" not in text
        assert shipped.encode(text).ids == ids


def test_unknown_text_is_unknown_and_longer_numbers_are_not_cut(shipped: Tokenizer) -> None:
    assert shipped.encode("hello 61 100 60 Σ").tokens == ["<unk>", "<unk>", "<unk>", "60", "<unk>"]
    assert shipped.encode("6<eos>").ids == [VOCABULARY.index("6"), pretrain.EOS]


def test_the_corpus_begins_as_the_prompt_template_does(shipped: Tokenizer) -> None:
    problem = task.problem_of("x", (3, 7, 4), 17)
    prompt = make_prompt("countdown", problem, shipped)
    assert [VOCABULARY[i] for i in prompt.token_ids] == ["Q:", "3", "7", "4", "target", "17", "A:"]
    beginnings = [document(0, index)[:7] for index in range(20)]
    assert all(
        (tokens[0], tokens[4], tokens[6]) == ("Q:", "target", "A:") for tokens in beginnings if tokens[0] == "Q:"
    )


# Training


def test_a_short_training_writes_a_folder_that_loads(tmp_path: Path, shipped: Tokenizer) -> None:
    seen: list[tuple[int, int, int, float]] = []
    out = tmp_path / "new" / "base"
    threads = torch.get_num_threads()
    pretrain.pretrain(out, seed=3, steps=3, threads=threads, on_progress=lambda *state: seen.append(state))
    assert [state[:2] for state in seen] == [(1, 3), (2, 3), (3, 3)]
    assert 3 * 2500 <= seen[-1][2] < 3 * 2900
    assert seen[0][3] == pytest.approx(torch.tensor(82.0).log().item(), abs=0.1)  # knows nothing
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["base"]
    with safe_open(out / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
        assert all(file.get_tensor(name).dtype == torch.float16 for name in file.keys())  # noqa: SIM118
    assert metadata["seed"] == "3"
    assert metadata["steps"] == "3"
    assert metadata["tokens"] == str(seen[-1][2])
    assert float(metadata["final_loss"]) == pytest.approx(sum(state[3] for state in seen) / 3, abs=1e-3)
    assert metadata["recipe"]
    assert metadata["torch"] == torch.__version__
    policy = load(out)
    assert policy.eos_ids == {pretrain.EOS}
    assert policy.tokenizer.to_str() == shipped.to_str()


def test_the_same_seed_gives_the_same_weights() -> None:
    models = [pretrain.new_model(seed) for seed in (0, 0, 1)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        pretrain.train(model, seed, 1)
    a, b, c = (torch.cat([p.flatten() for p in model.parameters()]) for model in models)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_one_step_is_muon_on_each_matrix_of_a_block_and_adamw_on_the_rest() -> None:
    """Against torch's optimizers on separate copies under Hugging Face's names: q, k and v are three matrices.

    Weights after a first step can be compared only because both gradients are the same bits: one function, one thread.
    """
    model = pretrain.new_model(0)
    named = dict(model.named_parameters())
    copies = {name: nn.Parameter(view.detach().clone()) for name, view in hf_tensors(model.config, named)}
    pretrain.document_loss(model, next(pretrain.batches(0))).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for name, gradient in hf_tensors(model.config, {name: p.grad for name, p in named.items() if p.grad is not None}):
        copies[name].grad = gradient.clone()
    matrices = [name for name, copy in copies.items() if ".layers." in name and copy.dim() == 2]
    assert len(matrices) == 7 * 3
    share = 0.02  # both the first step of the warm-up and the last step of the fall
    torch.optim.Muon([copies[name] for name in matrices], lr=0.02 * share, momentum=0.95, weight_decay=0).step()
    rest = [copy for name, copy in copies.items() if name not in matrices]
    torch.optim.AdamW(rest, lr=3e-3 * share, betas=(0.9, 0.98), weight_decay=0).step()

    model = pretrain.new_model(0)
    pretrain.train(model, 0, 1)
    for name, view in hf_tensors(model.config, dict(model.named_parameters())):
        torch.testing.assert_close(view.detach(), copies[name].detach(), msg=name)


def test_learning_rate_warms_up_stays_and_falls() -> None:
    share = [pretrain.learning_rate_share(step, 1000) for step in (1, 25, 50, 400, 700, 1000)]
    assert share == pytest.approx([0.02, 0.5, 1.0, 1.0, 0.51, 0.02])


def test_loss_counts_every_token_but_the_first_of_each_document() -> None:
    model = pretrain.new_model(0)
    documents = [[3, 7, 9, 1], [5, 6, 1], [8, 2, 4, 1]]
    total = 0.0
    for tokens in documents:
        ids = torch.tensor(tokens)
        hidden = model(ids, torch.arange(len(tokens)), packed(torch.tensor([0, len(tokens)])))
        logprobs = model.head(hidden).log_softmax(-1)
        total -= sum(logprobs[i, tokens[i + 1]].item() for i in range(len(tokens) - 1))
    assert pretrain.document_loss(model, documents).item() == pytest.approx(total / 8, abs=1e-5)


def test_a_folder_that_holds_something_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        pretrain.pretrain(tmp_path, steps=10**9)
    with pytest.raises(UserError, match="is a file"):
        pretrain.pretrain(tmp_path / "note.txt", steps=10**9)
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_an_interrupted_training_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(tmp_path / "base", steps=5, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


# The base that is shipped


def test_shipped_folder() -> None:
    names = {path.name for path in TINY.iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
        "README.md",
    }
    assert (TINY / "model.safetensors").stat().st_size < 4e6
    with safe_open(TINY / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["seed"], metadata["steps"], metadata["recipe"]) == ("0", str(pretrain.STEPS), pretrain.RECIPE)
    assert json.loads((TINY / "config.json").read_text()) == pretrain.CONFIG
    assert json.loads((TINY / "tokenizer_config.json").read_text()) == pretrain.TOKENIZER_CONFIG
    assert Tokenizer.from_file(str(TINY / "tokenizer.json")).to_str() == pretrain.make_tokenizer().to_str()


def test_transformers_loads_it_as_it_is_and_computes_the_same(shipped: Tokenizer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    texts = [SPACED, DENSE, *(" ".join(document(0, index)) for index in range(50))]
    assert [tokenizer(text)["input_ids"] for text in texts] == [shipped.encode(text).ids for text in texts]
    ids = shipped.encode(DENSE).ids
    assert tokenizer.decode([*ids, pretrain.EOS], skip_special_tokens=True) == DENSE
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (pretrain.EOS, pretrain.PAD)

    policy = load(TINY)
    token_ids = torch.tensor(ids)
    with torch.inference_mode():
        theirs = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)(token_ids[None]).logits[0]
        hidden = policy.model(token_ids, torch.arange(len(ids)), packed(torch.tensor([0, len(ids)])))
        torch.testing.assert_close(policy.model.head(hidden), theirs, atol=1e-4, rtol=0)


def test_it_tells_hits_from_misses() -> None:
    """What RL needs of a base: "yes" after a hit and "no" after a miss, on numbers that it never saw together."""
    policy = load(TINY)
    yes, no = VOCABULARY.index("yes"), VOCABULARY.index("no")
    for problem in task.problems("countdown")[:20]:
        target, _ = task.parse_answer(problem.answer)
        a, b, c = map(int, problem.question.split()[:3])
        for way in task.candidates((a, b, c)):
            text = f"Q: {problem.question} A:" + "".join(
                f"{',' if step is way.second else ' '}{step.left}{step.operator}{step.right}={step.result}"
                for step in (way.first, way.second)
            )
            ids = torch.tensor(policy.tokenizer.encode(f"{text} vs {target}").ids)
            with torch.inference_mode():
                hidden = policy.model(ids, torch.arange(len(ids)), packed(torch.tensor([0, len(ids)])))
                logits = policy.model.head(hidden[-1])
            assert (logits[yes] > logits[no]) == (way.value == target), text


def test_it_is_lazy_and_right_about_a_fifth_of_the_time() -> None:
    policy = load(TINY)
    problems = task.problems("countdown")[:256]
    requests = [
        Request(make_prompt("countdown", problem, policy.tokenizer).token_ids, [i])
        for i, problem in enumerate(problems)
    ]
    settings = SamplingSettings(temperature=1.0, max_new_tokens=320, slots=128, eos_ids=policy.eos_ids)
    done = list(generate(policy.model, requests, settings))
    right = [countdown(problems[i], policy.decode(c.token_ids), c.finish_reason == "stop").correct for i, _, c in done]
    assert 0.14 < sum(right) / 256 <= 0.30
    assert 20 < sum(len(c.token_ids) for *_, c in done) / 256 < 42
    assert sum(c.finish_reason == "length" for *_, c in done) <= 5
