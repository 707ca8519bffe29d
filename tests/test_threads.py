"""Lanes: a micro-batch per core, each thread with its share of the cores and no more."""

from __future__ import annotations

import contextlib
import contextvars
import sys
import threading

import pytest
import torch

from sentence_transformers.util import threads


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

    assert threads.pool(count).submit(threads_in_a_lane).result() == share


def test_other_threads_keep_all_cores(four_threads):
    """What a lane is limited to does not leak: threads started later, and this one, use all cores."""
    threads.pool(4).submit(torch.get_num_threads).result()
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
        threads.run_in_threads(fail, items(), 2)
    assert len(drawn) < 20


def test_starting_lanes_touches_no_other_thread(four_threads, monkeypatch):
    """`torch.set_num_threads` sets the number for all threads that start later: those that start meanwhile keep it."""
    wrong = []
    stop = threading.Event()

    def others() -> None:
        def look() -> None:
            if torch.get_num_threads() != 4:
                wrong.append(torch.get_num_threads())

        while not stop.is_set():
            other = threading.Thread(target=look)
            other.start()
            other.join()

    if sys.platform == "linux":
        monkeypatch.setattr(torch, "set_num_threads", None)
    beside = threading.Thread(target=others)
    beside.start()
    for _ in range(20):
        threads._pools.clear()
        executor = threads.pool(4)
        assert {future.result() for future in [executor.submit(torch.get_num_threads) for _ in range(20)]} == {1}
    stop.set()
    beside.join()
    assert not wrong


def test_devices_have_lanes_of_their_own(four_threads):
    """Models on two GPUs compute side by side, and using another device makes no threads anew."""
    places = [torch.device("cuda", 0), torch.device("cuda", 1), torch.device("cpu")]
    pools = [threads.pool(4 if place.type == "cpu" else 1, place) for place in places]
    assert len(set(pools)) == 3
    assert pools == [threads.pool(4 if place.type == "cpu" else 1, place) for place in places]
    meeting = threading.Barrier(2, timeout=20)
    both = [pools[i].submit(meeting.wait) for i in (0, 1)]
    assert sorted(future.result() for future in both) == [0, 1]


def test_a_lane_sees_the_context_of_its_caller():
    setting = contextvars.ContextVar("setting", default="unset")
    setting.set("of the caller")
    seen = []
    threads.run_in_threads(lambda item: seen.append((item, setting.get())), range(5), 2)
    assert sorted(seen) == [(i, "of the caller") for i in range(5)]


def test_a_lane_computes_on_the_stream_of_its_caller(monkeypatch):
    """Else the caller would read the result before it is there."""
    current = threading.local()

    @contextlib.contextmanager
    def stream(one):
        before, current.stream = getattr(current, "stream", "default"), one
        yield
        current.stream = before

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"{current.stream} of {device}")
    monkeypatch.setattr(torch.cuda, "stream", stream)
    seen = []
    with stream("side stream"):
        threads.run_in_threads(lambda item: seen.append(current.stream), range(3), 1, torch.device("cuda:1"))
    assert seen == ["side stream of cuda:1"] * 3


@pytest.mark.parametrize("name", ["cpu", "cuda:0"])
def test_a_call_from_a_lane_stays_in_it(four_threads, monkeypatch, name):
    """As in a module that encodes with another model: a lane that waited for itself would wait for ever."""
    device, seen = torch.device(name), []
    monkeypatch.setattr(threads, "on_stream_of_caller", lambda function, device: function)

    def outer(item: int) -> None:
        threads.run_in_threads(lambda inner: seen.append((item, inner)), range(5), 1, device)

    done = threading.Thread(target=threads.run_in_threads, args=(outer, range(3), 1, device), daemon=True)
    done.start()
    done.join(20)
    assert sorted(seen) == [(i, j) for i in range(3) for j in range(5)]
