"""Lanes: a micro-batch per core, each thread with its share of the cores and no more."""

from __future__ import annotations

import threading

import pytest
import torch

from sentence_transformers.inference import lanes


@pytest.fixture
def four_threads():
    """As on a machine of four cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("count", "share"), [(4, 1), (2, 2)])
def test_a_lane_has_its_share_also_after_its_first_operation(four_threads, count, share):
    """A thread takes over the global number of threads at its first operation; a lane keeps its own share."""

    def threads_in_a_lane() -> int:
        torch.ones(64, 64) @ torch.ones(64, 64)
        return torch.get_num_threads()

    assert lanes.pool(count).submit(threads_in_a_lane).result() == share


def test_other_threads_keep_all_cores(four_threads):
    """What a lane is limited to does not leak: threads started later, and this one, use all cores."""
    lanes.pool(4).submit(torch.get_num_threads).result()
    found = []
    other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert (found, torch.get_num_threads()) == ([4], 4)


def test_the_first_error_ends_the_run():
    """An error in one lane is raised, and no further items are drawn."""
    drawn = []

    def items():
        for i in range(1000):
            drawn.append(i)
            yield i

    def fail(i: int) -> None:
        raise ValueError(f"item {i}")

    with pytest.raises(ValueError, match="item"):
        lanes.run_side_by_side(fail, items(), 2)
    assert len(drawn) < 20
