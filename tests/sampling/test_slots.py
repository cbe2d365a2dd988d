"""The slots' cache: prompts kept once, and a merge of the two parts that is exact."""

import pytest
import torch

from r1v0.models.shape import ModelConfig
from r1v0.sampling.slots import SlotCache, attention_part

pytestmark = pytest.mark.numeric


@pytest.fixture(params=["compiled", "PyTorch"], autouse=True)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's compiler, where there is one, and without."""
    if request.param == "PyTorch":
        monkeypatch.setenv("CC", "")


CONFIG = ModelConfig(40, 32, 48, 1, 4, 2, 8, 1e-6, 1e4, 512, True, True, False)


def filled(slots: list[list[int]], lengths: list[int], count: int) -> tuple[SlotCache, dict[int, torch.Tensor]]:
    """A cache with prompts of these lengths for these slots; and each slot's sequence of [q; k; v] so far."""
    torch.manual_seed(0)
    cache = SlotCache(CONFIG, count, 64, torch.device("cpu"), torch.float32)
    q, k, v = torch.randn(sum(lengths), 4, 8), torch.randn(sum(lengths), 2, 8), torch.randn(sum(lengths), 2, 8)
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    cache.prefill(bounds, slots)(0, q, k, v)
    seen = {row: torch.zeros(0, 2, 2, 8) for row in range(count)}
    for rows, start, end in zip(slots, bounds.tolist(), bounds[1:].tolist(), strict=False):
        seen |= {row: torch.stack([k[start:end], v[start:end]], 1) for row in rows}
    return cache, seen


def decode(cache: SlotCache, seen: dict[int, torch.Tensor], rows: list[int]) -> None:
    """One step for slots that hold the sequences `rows` of `seen`, checked against plain attention over each whole."""
    q, kv = torch.randn(len(rows), 4, 8), torch.randn(len(rows), 2, 2, 8)
    positions = torch.tensor([seen[row].shape[0] for row in rows])
    out = cache.decode(positions)(0, q, kv[:, 0], kv[:, 1])
    for i, row in enumerate(rows):
        seen[row] = torch.cat([seen[row], kv[i : i + 1]])
        keys, values = seen[row][:, 0].repeat_interleave(2, 1), seen[row][:, 1].repeat_interleave(2, 1)
        shares = (torch.einsum("hd,lhd->hl", q[i], keys) * 8**-0.5).softmax(-1)
        assert (out[i] - torch.einsum("hl,lhd->hd", shares, values)).abs().max() < 1e-6


def test_rows_attend_over_their_prompt_and_themselves() -> None:
    cache, seen = filled([[0, 3], [1], [4, 2, 5]], [5, 1, 9], 7)  # slot 6 has no prompt at all
    for _ in range(4):
        decode(cache, seen, list(range(7)))
    assert cache.prompts.keys[0].shape[0] == 3  # kept once each


def test_keeping_some_rows_drops_the_prompts_that_nobody_has() -> None:
    cache, seen = filled([[0, 3], [1], [4, 2, 5]], [5, 2, 9], 6)
    decode(cache, seen, list(range(6)))
    cache.free([1])
    cache.keep(torch.tensor([5, 0, 3]))
    assert cache.prompts.rows == 2
    for _ in range(3):
        decode(cache, seen, [5, 0, 3])


def test_a_freed_prompts_place_is_used_again() -> None:
    cache, _ = filled([[0, 1], [2, 3]], [30, 4], 4)
    cache.free([0, 1])
    k = torch.randn(6, 2, 8)
    cache.prefill(torch.tensor([0, 6]), [[0]])(0, torch.randn(6, 4, 8), k, k)
    cache.copy(0, [1], 6)
    assert cache.prompts.rows == 2
    assert cache.lengths == [6, 4]
    assert cache.owner == [0, 0, 1, 1]


def test_parts_for_other_devices_are_the_cpus() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 8), torch.randn(3, 2, 9, 8), torch.randn(3, 2, 9, 8)
    mask = torch.where(torch.arange(9) > torch.tensor([[8], [2], [0]]), float("-inf"), 0.0)[:, None, None, :]
    out, lse = attention_part(q, k, v, mask)
    scores = (q @ k.transpose(-1, -2)) * 8**-0.5 + mask
    assert (out - scores.softmax(-1) @ v).abs().max() < 1e-6
    assert (lse - scores.logsumexp(-1)).abs().max() < 1e-6
