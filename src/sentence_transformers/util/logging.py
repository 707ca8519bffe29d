"""Logging that does not tear progress bars apart."""

from __future__ import annotations

import logging


class LoggingHandler(logging.Handler):
    """Writes each record with `tqdm.write`, so that progress bars stay whole.

    >>> logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, handlers=[LoggingHandler()])
    """

    def __init__(self, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm.auto import tqdm

        try:
            tqdm.write(self.format(record))
            self.flush()
        except Exception:
            self.handleError(record)


def install_logger(
    given_logger: logging.Logger,
    level: int | str = logging.WARNING,
    fmt: str = "%(levelname)s:%(name)s:%(message)s",
) -> None:
    """Give a logger coloured output on the terminal; needs the package coloredlogs."""
    try:
        import coloredlogs
    except ImportError as error:
        raise ImportError("`install_logger` needs coloredlogs: pip install coloredlogs") from error
    coloredlogs.install(logger=given_logger, level=level, fmt=fmt)
