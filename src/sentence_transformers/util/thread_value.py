"""A value that each thread has for itself, set for the time of a block.

    packing = ThreadValue(None)
    with packing.set_to(mine):
        …                          packing.value is mine here, and None in other threads

Of the kinds of state that a call can leave to the functions below it, this is the one that `torch.compile` and
`torch.export` follow: a context variable ends their graph.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class ThreadValue(threading.local, Generic[T]):
    """
    Args:
        value: what each thread begins with.
    """

    def __init__(self, value: T) -> None:  # runs anew in each thread
        self.value = value

    @contextlib.contextmanager
    def set_to(self, value: T) -> Iterator[None]:
        """Within the block, `value` in this thread."""
        before, self.value = self.value, value
        try:
            yield
        finally:
            self.value = before
