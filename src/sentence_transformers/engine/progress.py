"""The progress bar of long calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def progress_bar(
    total: int, show: bool | None, description: str = "Encoding", unit: str = " texts"
) -> Iterator[Callable[..., Any]]:
    """A bar over `total` inputs; gives the function that advances it, `advance(count)` or `advance(count, note)`.

    Args:
        show: None shows it if the logger of this package is at INFO or below.
    """
    if show is None:
        show = logging.getLogger("sentence_transformers").getEffectiveLevel() <= logging.INFO
    if not show:
        yield lambda count, note=None: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=description, unit=unit, smoothing=0.1) as bar:

        def advance(count: int, note: str | None = None) -> None:
            if note is not None:
                bar.set_postfix_str(note, refresh=False)
            bar.update(count)

        yield advance
