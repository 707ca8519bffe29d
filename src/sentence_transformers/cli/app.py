"""The commands by name."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from sentence_transformers.cli.exit_codes import guarded

COMMANDS = {  # module -> its commands, in the order of the help
    "encode": ("encode",),
    "search": ("search", "rank", "similarity"),
    "index": ("build", "add", "search"),
    "mine": ("mine",),
    "evaluate": ("evaluate",),
    "train": ("train",),
    "quantize": ("quantize",),
    "export": ("export",),
    "plot": ("map_", "heatmap", "training"),
    "info": ("info",),
}
GROUPS = {
    "index": "An index of documents that stays on disk: build it, add to it, search it.",
    "plot": "Pictures: a map of texts, a table of similarities, a training curve.",
}

app = typer.Typer(
    name="sentence-transformers",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        from sentence_transformers import __version__

        typer.echo(f"sentence-transformers {__version__}")
        raise typer.Exit


HELP = """Texts to vectors and scores: encode, search, re-rank, train, measure.

Files of texts are txt (one per line), csv, tsv, jsonl or parquet, also with .gz; "-" is standard input. Results go
to standard output or --output, everything else to standard error. `COMMAND --help` has an example each.
"""


def flowing(text: str) -> str:
    """A docstring with each paragraph on one line, so that the terminal's width breaks it."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


@app.callback(help=flowing(HELP))
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and end.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")] = False,
) -> None:
    """The options that stand before a command."""


def register() -> None:
    """Put the commands of each module into the application."""
    for module_name, names in COMMANDS.items():
        module = importlib.import_module(f"sentence_transformers.cli.{module_name}")
        target = app
        if module_name in GROUPS:
            target = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
            app.add_typer(target, name=module_name, help=GROUPS[module_name])
        for name in names:
            command = getattr(module, name)
            target.command(name.rstrip("_"), help=flowing(command.__doc__))(guarded(command))


register()
