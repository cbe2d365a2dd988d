"""log p(token | tokens before it) and the entropy it was drawn from, without ever holding all logits.

Decides: all shifting by one happens in `predictors`, nowhere else: entry t of all results is about `token_ids[t]`. The
head runs only where completion tokens are predicted, a slice of the vocabulary at a time and again in the backward
pass, so that 8000 tokens x 151,936 words are never in memory together, and each row of the head's gradient is one sum
over all tokens, rounded once. Entropy is a reading, not an objective: it has no gradient.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from r1v0.models.attention import packed
from r1v0.models.sizes import head_slice
from r1v0.models.transformer import Transformer
from r1v0.types import Batch


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """`logprobs` [T] and `entropy` [T] (nats), both float32 and 0 where the batch's weight is 0."""

    logprobs: Tensor
    entropy: Tensor


def token_logprobs(model: Transformer, batch: Batch, temperature: float) -> TokenLogprobs:
    """Score the completion tokens of a packed batch under softmax(logits / temperature)."""
    hidden = model(batch.token_ids, batch.positions, packed(batch.cu_seqlens, batch.parents))
    scored = batch.weights.nonzero().squeeze(1)
    rows = hidden.index_select(0, predictors(batch)[scored])
    logprobs, entropy = ChunkedHead.apply(  # type: ignore[no-untyped-call]
        rows, model.head_weight, batch.token_ids[scored], temperature
    )
    zeros = torch.zeros_like(batch.weights)
    return TokenLogprobs(zeros.index_copy(0, scored, logprobs), zeros.index_copy(0, scored, entropy))


def predictors(batch: Batch) -> Tensor:
    """Of each token the one whose hidden state predicts it, [T]: the one before, and for a completion's first token the
    last one of its prompt. A prompt's first token has none; its entry means nothing."""
    rows = torch.arange(-1, batch.token_ids.shape[0] - 1)
    completions = batch.parents >= 0
    rows[batch.cu_seqlens[:-1][completions]] = batch.cu_seqlens[1:][batch.parents[completions]] - 1
    return rows.to(batch.token_ids.device)


class ChunkedHead(torch.autograd.Function):
    """hidden [M, d], head [V, d], token_ids [M] -> logprobs [M], entropy [M].

    With z = hidden @ head.T / temperature and p = softmax(z): logprob = z[token] - logsumexp(z), and its gradient
    with respect to z is onehot(token) - p. Sums over the vocabulary run on from slice to slice, relative to the largest
    logit so far (online softmax, arXiv 1805.02867); entropy = logsumexp(z) - sum(p z). Where one slice is the whole
    vocabulary, its exp(z - largest) is kept for the backward pass; else a slice is computed again.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, token_ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        rows = hidden.shape[0]
        largest = torch.full((rows,), -torch.inf, device=hidden.device)
        # Sums of exp(z - largest), of that x z, and z[token].
        total, weighted, chosen = torch.zeros(3, rows, device=hidden.device)
        width = head_slice(rows, head.shape[0])
        for start in range(0, head.shape[0], width):
            z = _logits(hidden, head[start : start + width], temperature)
            column, here = _columns(token_ids, start, z.shape[1])
            chosen += z.gather(1, column).squeeze(1) * here
            before, largest = largest, torch.maximum(largest, z.amax(1))
            shrink = (before - largest).exp_()
            exp = (z - largest[:, None]).exp_()
            total = total * shrink + exp.sum(1)
            weighted = weighted * shrink + z.mul_(exp).sum(1)
        lse = largest + total.log()
        kept = exp if width == head.shape[0] else None
        ctx.save_for_backward(hidden, head, token_ids, lse, total, kept)
        ctx.temperature = temperature
        entropy = lse - weighted / total
        ctx.mark_non_differentiable(entropy)
        return chosen - lse, entropy

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        hidden, head, token_ids, lse, total, kept = ctx.saved_tensors
        grad_hidden = torch.zeros_like(hidden, dtype=torch.float32)
        grad_head = torch.empty_like(head) if ctx.needs_input_grad[1] else None
        scale = (grad / ctx.temperature)[:, None]
        for start in range(0, head.shape[0], width := head_slice(hidden.shape[0], head.shape[0])):
            part = head[start : start + width]
            if kept is None:
                p = _logits(hidden, part, ctx.temperature).sub_(lse[:, None]).exp_().mul_(-scale)
            else:
                p = kept.mul_(-scale / total[:, None])
            column, here = _columns(token_ids, start, part.shape[0])
            dz = p.scatter_add_(1, column, scale * here[:, None]).to(head.dtype)
            grad_hidden += dz @ part
            if grad_head is not None:
                torch.mm(dz.T, hidden, out=grad_head[start : start + width])
        return grad_hidden.to(hidden.dtype), grad_head, None, None


def _logits(hidden: Tensor, head: Tensor, temperature: float) -> Tensor:
    """[M, words] in float32, of a slice [words, d] of the head."""
    z = F.linear(hidden, head).float()
    return z if temperature == 1 else z.div_(temperature)


def _columns(token_ids: Tensor, start: int, width: int) -> tuple[Tensor, Tensor]:
    """Where each token stands in the slice of `width` words from `start`, [M, 1]; whether it does (1.0 or 0.0), [M]."""
    column = token_ids - start
    here = (column >= 0) & (column < width)
    return column.clamp(0, width - 1)[:, None], here.float()
