"""Random numbers without state: each is a hash of what it is for.

Decides: nothing in a run draws from a generator whose state would have to be saved, shared or kept in step. A key is
64 bits of BLAKE2b over (seed, purpose, indices); so resuming, batch size, order and the number of processes cannot
change a draw. The sampler's one uniform a token is a counter-based hash of (rollout key, position) (sampling/draw.py).
"""

import hashlib
import random


def key(seed: int, *purpose: str | int) -> int:
    """A signed 64-bit key for `purpose`, for example key(seed, "train", step, index)."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True
    )


def shuffled(count: int, seed_key: int) -> list[int]:
    """0..count-1 in the order that `seed_key` stands for."""
    order = list(range(count))
    random.Random(seed_key).shuffle(order)
    return order


def unit(seed_key: int) -> float:
    """A number in [0, 1)."""
    return (seed_key & ((1 << 53) - 1)) / (1 << 53)
