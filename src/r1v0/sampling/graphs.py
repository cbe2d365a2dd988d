"""One CUDA graph a bucket of rows: a decoding step is some 400 kernels, and launching each costs more than running it.

Decides: a step works on static buffers, and on as many rows as a bucket holds, so a handful of graphs serve every
number of rows. A bucket's first step runs as it is (it compiles and warms up, and its token counts), then the same
step is captured; capturing runs nothing. A graph holds addresses: the weights may change in place (the optimizer
copies into them), but buffers and parameters must keep their storage. All graphs share one memory pool; they are
replayed one after another, which makes that safe. Each graph is tried (tried.py) beside the first step; after one that
fails every step runs eagerly.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from r1v0.models.tried import Pairs, tried

SMALLEST = 8
NAME = "CUDA graphs"


def buckets(rows: int) -> list[int]:
    """8, 16, 32, ... and `rows` itself: a step on more rows than are alive costs little, another graph costs memory."""
    sizes = [rows]
    size = SMALLEST
    while size < rows:
        sizes.append(size)
        size *= 2
    return sorted(sizes)


class Buckets:
    """Calls `step(rows)` with the smallest bucket that holds `rows`; on a GPU, by replaying its graph. The step
    changes the first columns of `state` [., rows]: its first row holds tokens, its last one is 1 for rows that are
    alive.

    The result is the step's own tensor of the whole bucket, valid until the next call. Rows beyond `rows` must be dead.
    """

    def __init__(self, step: Callable[[int], Tensor], state: Tensor, capture: bool) -> None:
        self.step, self.state, self.sizes, self.capture = step, state, buckets(state.shape[1]), capture
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        if capture:
            self._pool = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream()

    def __call__(self, rows: int) -> Tensor:
        bucket = next(size for size in self.sizes if size >= rows)
        if not self.capture:
            return self.step(bucket)
        if bucket in self.graphs:
            graph, result = self.graphs[bucket]
            graph.replay()
            return result
        before = self.state.clone()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            first = self.step(bucket)
        torch.cuda.current_stream().wait_stream(self._stream)
        after = self.state.clone()
        if not tried(NAME, partial(self._trial, bucket, before, after, first)):
            self.capture = False
            self.graphs.clear()
        self.state.copy_(after)
        return first

    def _trial(self, bucket: int, before: Tensor, after: Tensor, first: Tensor) -> Pairs:
        """Capture the step that gave `first` and `after` from the state `before`, and replay it there: keys and
        values are stored once more at the same places. Another rounding may draw another token here and there."""
        graph = torch.cuda.CUDAGraph()
        # thread_local: another thread's harmless CUDA call must not break the capture
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            result = self.step(bucket)
        self.state.copy_(before)
        graph.replay()
        self.graphs[bucket] = (graph, result)
        alive = after[-1, :bucket] == 1
        same = alive & (self.state[0, :bucket] == after[0, :bucket])
        if 4 * int(same.sum()) < 3 * int(alive.sum()):
            raise ValueError("a graph draws other tokens than the eager step")
        # at bfloat16's tolerance: the model may compute in it
        return [(result[same].bfloat16(), first[same]), (self.state[1:, alive].double(), after[1:, alive])]
