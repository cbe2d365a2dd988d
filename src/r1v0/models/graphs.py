"""One CUDA graph a bucket of rows: a decoding step is some 400 kernels, and launching each costs more than running it.

Decides: a step works on static buffers, and on as many rows as a bucket holds, so a handful of graphs serve every
number of rows. A bucket's first step runs as it is (it compiles and warms up, and its token counts), then the same
step is captured; capturing runs nothing. A graph holds addresses: the weights may change in place (the optimizer
copies into them), but buffers and parameters must keep their storage. All graphs share one memory pool; they are
replayed one after another, which makes that safe.
"""

from collections.abc import Callable

import torch
from torch import Tensor

SMALLEST = 8


def buckets(rows: int) -> list[int]:
    """8, 16, 32, ... and `rows` itself: a step on more rows than are alive costs little, another graph costs memory."""
    sizes = [rows]
    size = SMALLEST
    while size < rows:
        sizes.append(size)
        size *= 2
    return sorted(sizes)


class Buckets:
    """Calls `step(rows)` with the smallest bucket that holds `rows`; on a GPU, by replaying its graph.

    The result is the step's own tensor of the whole bucket, valid until the next call. Rows beyond `rows` must be dead.
    """

    def __init__(self, step: Callable[[int], Tensor], rows: int, capture: bool) -> None:
        self.step, self.sizes, self.capture = step, buckets(rows), capture
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
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            first = self.step(bucket)
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # thread_local: another thread's harmless CUDA call must not break the capture
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            result = self.step(bucket)
        self.graphs[bucket] = (graph, result)
        return first
