"""log p(token | tokens before it) and the entropy it was drawn from, without ever holding all logits.

Decides: all shifting by one happens in `token_logprobs`, nowhere else: entry t of its results is about
`token_ids[t]`. The head runs only at completion positions and in chunks of rows, again in the backward pass, so that
8000 tokens x 151,936 words are never in memory together. Entropy is a reading, not an objective: it has no gradient.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from r1v0.models.attention import packed
from r1v0.models.transformer import Transformer
from r1v0.types import Batch

HEAD_ROWS = 1024  # rows of logits held at a time: 1024 x 151,936 float32 are 0.6 GB


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """`logprobs` [T] and `entropy` [T] (nats), both float32 and 0 where the batch's weight is 0."""

    logprobs: Tensor
    entropy: Tensor


def token_logprobs(model: Transformer, batch: Batch, temperature: float) -> TokenLogprobs:
    """Score the completion tokens of a packed batch under softmax(logits / temperature)."""
    hidden = model(batch.token_ids, batch.positions, packed(batch.cu_seqlens))
    scored = batch.weights.nonzero().squeeze(1)
    rows = hidden.index_select(0, scored - 1)  # the hidden state that predicts token t is that of token t - 1
    logprobs, entropy = ChunkedHead.apply(  # type: ignore[no-untyped-call]
        rows, model.head_weight, batch.token_ids[scored], temperature
    )
    zeros = torch.zeros_like(batch.weights)
    return TokenLogprobs(zeros.index_copy(0, scored, logprobs), zeros.index_copy(0, scored, entropy))


class ChunkedHead(torch.autograd.Function):
    """hidden [M, d], head [V, d], token_ids [M] -> logprobs [M], entropy [M].

    With z = hidden @ head.T / temperature and p = softmax(z): logprob = z[token] - logsumexp(z), and its gradient
    with respect to z is onehot(token) - p.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, token_ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        lse, logprobs, entropy = (torch.empty(hidden.shape[0], device=hidden.device) for _ in range(3))
        for start in range(0, hidden.shape[0], HEAD_ROWS):
            part = slice(start, start + HEAD_ROWS)
            logits = F.linear(hidden[part], head).float().div_(temperature)
            lse[part] = logits.logsumexp(-1)
            logits -= lse[part, None]
            logprobs[part] = logits.gather(1, token_ids[part, None]).squeeze(1)
            entropy[part] = -(logits.exp() * logits).sum(-1)
        ctx.save_for_backward(hidden, head, token_ids, lse)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden, head, token_ids, lse = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_head = torch.zeros_like(head, dtype=torch.float32)
        for start in range(0, hidden.shape[0], HEAD_ROWS):
            part = slice(start, start + HEAD_ROWS)
            logits = F.linear(hidden[part], head).float().div_(ctx.temperature)
            dz = (logits - lse[part, None]).exp_().neg_()
            dz.scatter_add_(1, token_ids[part, None], torch.ones_like(dz[:, :1]))
            dz.mul_(grad[part, None] / ctx.temperature)
            dz = dz.to(hidden.dtype)
            grad_hidden[part] = dz @ head
            grad_head += dz.T @ hidden[part]
        return grad_hidden, grad_head.to(head.dtype), None, None
