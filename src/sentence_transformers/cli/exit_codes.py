"""What goes wrong becomes one line on standard error and an exit code.

    0    done
    1    failed: a model that is not there, a file that is damaged, an error of this library
    2    wrong usage: an option or argument that cannot be
    3    done, but some rows could not be encoded (`encode --ray`)
    130  interrupted by Ctrl-C
    141  the reader of standard output went away (`… | head`); silent

`--debug`, anywhere on the line, shows the traceback instead.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import typer

FAILED, USAGE, REJECTED, INTERRUPTED, BROKEN_PIPE = 1, 2, 3, 130, 141
EXPECTED = (ValueError, OSError, ImportError, RuntimeError, KeyError)
Command = TypeVar("Command", bound=Callable[..., Any])
_debug = False


def run(app: typer.Typer, arguments: list[str]) -> None:
    """Run the command line in `arguments`."""
    global _debug
    end = arguments.index("--") if "--" in arguments else len(arguments)
    _debug = "--debug" in arguments[:end]
    arguments = [value for i, value in enumerate(arguments) if value != "--debug" or i > end]
    level = logging.DEBUG if _debug else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    logging.getLogger("sentence_transformers").setLevel(level)
    from sentence_transformers.cli.ray import with_address

    app(args=with_address(arguments), prog_name="sentence-transformers")


def only_our_progress() -> None:
    """No progress bars of other libraries between our own lines, but for downloads."""
    from huggingface_hub import utils

    utils.disable_progress_bars()  # transformers asks for it when it is imported
    utils.enable_progress_bars("huggingface_hub")
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    for name in ("transformers.utils.logging", "datasets"):
        if module := sys.modules.get(name):
            (getattr(module, "disable_progress_bar", None) or module.disable_progress_bars)()


def hide_warnings(quiet: bool) -> None:
    """With --quiet, no warnings."""
    if quiet and not _debug:
        logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


def print_note(message: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"{message}\n")


def usage_error(message: str, option: str | None = None) -> typer.BadParameter:
    """An exception for wrong usage; `option` names what is wrong."""
    return typer.BadParameter(message, param_hint=option)


def guarded(command: Command) -> Command:
    """A command whose exceptions become messages and exit codes."""

    @functools.wraps(command)
    def run_guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except KeyboardInterrupt:
            print_note("Interrupted.")
            raise SystemExit(INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it at its end
            raise SystemExit(BROKEN_PIPE) from None
        except Exception as error:
            if _debug:
                raise
            print_note(error_message(error))
            raise SystemExit(FAILED) from None

    return run_guarded  # type: ignore[return-value]


def error_message(error: Exception) -> str:
    """The message of an error, for people."""
    text = str(error) if not isinstance(error, KeyError) else f"{error} is missing"
    if isinstance(error, EXPECTED) and text:
        return f"Error: {text}"
    return f"Error: {type(error).__name__}: {text}\nThis was not foreseen; --debug shows where it happened."
