"""The bench of cached gradients: what it prints, and that it measures a step."""

import pytest

import gradcache
from gradcache import Measured


def test_ratios_are_to_the_first_row_with_and_without_the_baseline() -> None:
    """600 and 620 MiB over a baseline of 400 are 1.03 times in all, 1.10 times without it."""
    rows = [Measured(64, 0, 400.0, 600.0, 2.0), Measured(4096, 64, 400.0, 620.0, 128.0)]
    assert gradcache.table(rows).splitlines()[2:] == [
        "| 64 | at once | 600 | 1.00 | 200 | 1.00 | 2.0 | 32 |",
        "| 4,096 | 64 | 620 | 1.03 | 220 | 1.10 | 128.0 | 32 |",
    ]


@pytest.mark.slow
def test_a_batch_of_twice_the_chunk_takes_less_than_at_once() -> None:
    at_once, in_chunks = gradcache.in_own_process(64, 0), gradcache.in_own_process(64, 16)
    assert (in_chunks.batch, in_chunks.chunk) == (64, 16)
    assert 0 < in_chunks.own_mib < 0.7 * at_once.own_mib
