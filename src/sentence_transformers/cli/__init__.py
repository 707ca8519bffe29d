"""The command line: `sentence-transformers COMMAND …`, or `python -m sentence_transformers COMMAND …`.

    app.py         the commands by name, and the options that stand before a command
    exit_codes.py  what goes wrong becomes one line and a code: 0 done, 1 failed, 2 wrong usage, 130 interrupted, …
    options.py     options that several commands share
    texts.py       rows of txt, csv, tsv, jsonl and parquet files, or of standard input, one at a time
    models.py      which kind of model a name stands for; loading it
    chunks.py      results on disk, chunk by chunk, so that a run that was killed goes on where it was
    show.py        results for people (tables) and for programs (tab-separated or JSON lines); progress
    and one file per group of commands

Results go to standard output or to files, everything else to standard error. Nothing here imports torch before a
command needs it, so `--help` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line; ends with `SystemExit`.

    Args:
        arguments: what stands after the program's name; default: that of this process.
    """
    try:
        import typer  # noqa: F401
    except ImportError as error:
        sys.stderr.write(f"The command line needs a package that is not installed ({error}): pip install typer\n")
        raise SystemExit(1) from None
    from sentence_transformers.cli import exit_codes
    from sentence_transformers.cli.app import app

    exit_codes.run(app, list(sys.argv[1:] if arguments is None else arguments))
