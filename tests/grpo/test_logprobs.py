"""The chunked head against plain PyTorch, and the one place where tokens are shifted."""

import pytest
import torch

from r1v0.grpo import logprobs
from r1v0.grpo.batch import pack
from r1v0.grpo.logprobs import ChunkedHead, predictors, token_logprobs
from r1v0.models import sizes
from r1v0.models.attention import packed
from r1v0.models.sizes import head_slice
from tests.helpers import rollout, small_model

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.0])
@pytest.mark.parametrize("width", [3, 7, 100])
def test_head_equals_log_softmax(monkeypatch: pytest.MonkeyPatch, temperature: float, width: int) -> None:
    monkeypatch.setattr(logprobs, "head_slice", lambda rows, vocab: min(width, vocab))
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(20, 16, generator=generator, requires_grad=True)
    head = torch.randn(50, 16, generator=generator, requires_grad=True)
    tokens = torch.randint(0, 50, (20,), generator=generator)
    upstream = torch.randn(20, generator=generator)
    found, entropy = ChunkedHead.apply(hidden, head, tokens, temperature)  # type: ignore[no-untyped-call]
    grads = torch.autograd.grad((found * upstream).sum(), [hidden, head])
    reference = ((hidden @ head.T) / temperature).log_softmax(-1)
    expected = reference.gather(1, tokens[:, None]).squeeze(1)
    expected_grads = torch.autograd.grad((expected * upstream).sum(), [hidden, head])
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(entropy, -(reference.exp() * reference).sum(-1), atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(grads, expected_grads, strict=True))
    assert not entropy.requires_grad


def test_entry_t_is_about_token_t() -> None:
    model = small_model()
    batch = pack([(rollout([5, 6, 7], [8, 9, 1], 1.0), 0.5, 0.1), (rollout([4], [3, 1], 0.0), -0.5, 0.2)])
    with torch.no_grad():
        scored = token_logprobs(model, batch, 1.0)
        first = model.head(
            model(torch.tensor([5, 6, 7, 8, 9, 1]), torch.arange(6), packed(torch.tensor([0, 6])))
        ).log_softmax(-1)
        second = model.head(model(torch.tensor([4, 3, 1]), torch.arange(3), packed(torch.tensor([0, 3])))).log_softmax(
            -1
        )
    assert batch.cu_seqlens.tolist() == [0, 3, 6, 7, 9]
    assert predictors(batch)[[3, 4, 5, 7, 8]].tolist() == [2, 3, 4, 6, 7]
    expected = [0, 0, 0, first[2, 8], first[3, 9], first[4, 1], 0, second[0, 3], second[1, 1]]
    assert torch.allclose(scored.logprobs, torch.tensor(expected), atol=1e-5)
    entropy = [-(row.exp() * row).sum() for row in (first[2], first[3], first[4], second[0], second[1])]
    assert scored.entropy[scored.entropy != 0].tolist() == pytest.approx([float(x) for x in entropy], abs=1e-5)


def test_a_completions_first_token_is_predicted_by_its_prompts_last() -> None:
    batch = pack([(rollout([5, 6, 7], [8, 9, 1], 1.0), 0.5, 0.1), (rollout([5, 6, 7], [2, 1], 0.0), -0.5, 0.2)])
    assert batch.parents.tolist() == [-1, 0, 0]
    assert predictors(batch)[3:].tolist() == [2, 3, 4, 2, 6]


def test_a_slice_of_the_head_takes_bytes_not_rows() -> None:
    assert head_slice(8192, 82) == 82  # a small vocabulary is one slice
    assert head_slice(0, 82) == 82
    assert head_slice(1024, 151_936) * 1024 * 4 == 1 << 25
    assert head_slice(10**6, 151_936) == 1024
    assert head_slice(1, 10**9) == 1 << 23  # one row of 2^25 bytes


def test_the_slice_of_a_small_vocabulary_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two products a slice of the head, forward and backward; one that holds all of it is kept in between."""
    widths: list[int] = []
    whole = logprobs._logits

    def counted(hidden: torch.Tensor, head: torch.Tensor, temperature: float) -> torch.Tensor:
        widths.append(head.shape[0])
        return whole(hidden, head, temperature)

    monkeypatch.setattr(logprobs, "_logits", counted)
    for size, expected in ((1 << 25, [40]), (16 * 20 * 4, [16, 16, 8] * 2)):
        monkeypatch.setattr(sizes, "NARROWEST", 1)
        monkeypatch.setattr(sizes, "HEAD_BYTES", size)
        widths.clear()
        hidden = torch.randn(20, 32, requires_grad=True)
        head, tokens = torch.randn(40, 32), torch.arange(20)
        found, _ = ChunkedHead.apply(hidden, head, tokens, 1.0)  # type: ignore[no-untyped-call]
        found.sum().backward()
        assert widths == expected


@pytest.mark.parametrize("trained", [(True, False), (False, True)])
def test_what_is_frozen_gets_no_gradient(trained: tuple[bool, bool]) -> None:
    """The head under adapters, say; what is left has the gradient that it has beside the other."""
    generator = torch.Generator().manual_seed(0)
    hidden, head = torch.randn(20, 16, generator=generator), torch.randn(50, 16, generator=generator)
    inputs = [hidden.requires_grad_(trained[0]), head.requires_grad_(trained[1])]
    ChunkedHead.apply(*inputs, torch.arange(20), 1.0)[0].sum().backward()  # type: ignore[no-untyped-call]
    (one,) = (x for x in inputs if x.requires_grad)
    expected = torch.autograd.grad((hidden @ head.T).log_softmax(-1).diagonal().sum(), [one])[0]
    assert torch.allclose(one.grad, expected, atol=1e-4)  # type: ignore[arg-type]
    assert [x.grad is not None for x in inputs] == list(trained)
