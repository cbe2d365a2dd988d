"""Numbers that runs and the plan go by."""

from r1v0.models.sizes import workers

MIB = 1 << 20


def test_how_many_workers() -> None:
    assert workers(2, 22 * MIB, 14_000) == 2
    assert workers(16, 22 * MIB, 2048) == 4  # 512 tokens each
    assert workers(16, 540 * MIB, 32_768) == 2  # SmolLM2-135M in float32: one copy of its gradients
    assert workers(16, 6000 * MIB, 32_768) == 1
    assert workers(16, 22 * MIB, 4096, 1200) == 3  # each has room for the longest sequence
    assert workers(16, 22 * MIB, 4096, 5000) == 1
    assert workers(1, 0, 0) == workers(8, 0, 100) == 1
