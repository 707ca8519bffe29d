"""`encode --ray`: the same command on a Ray cluster, or with all cores of this machine."""

from __future__ import annotations

import re
from typing import Any

from sentence_transformers.cli import console
from sentence_transformers.cli.exit_codes import REJECTED, complain, usage_error
from sentence_transformers.cli.row_readers import STDIN

LOCAL = "local"
ADDRESS = re.compile(r"(auto|local|ray://.+|[\w.-]+:\d+|\[[\da-fA-F:]+\]:\d+)")


def with_address(arguments: list[str]) -> list[str]:
    """The command line with an address behind each `--ray`: `local` where what follows is none."""
    result: list[str] = []
    for value, after in zip(arguments, [*arguments[1:], ""], strict=True):
        result += ["--ray", LOCAL] if value == "--ray" and not ADDRESS.fullmatch(after) else [value]
    return result


def encode_on_ray(source: str, output: str, address: str, model: str, quiet: bool, **settings: Any) -> None:
    """Encode files on Ray into a folder of shards; ends with the code REJECTED if some rows could not be encoded."""
    from sentence_transformers.cluster.encode import encode_dataset

    if source == STDIN or output == STDIN:
        raise usage_error("needs files that all machines see, and a folder as --output.", "--ray")
    given = {name: value for name, value in settings.items() if value is not None}
    done = encode_dataset(source, model, output=output, address=address, show_progress_bar=not quiet, **given)
    if not quiet:
        speed = f"{done.texts_per_second:,.0f} texts/s, {done.tokens_per_second:,.0f} tokens/s"
        complain(f"{done.encoded:,} texts -> {done.output} in {console.duration(done.seconds)}, {speed}")
    if done.rejected:
        complain(f"{done.rejected:,} rows could not be encoded; {done.rejects} says why.")
        raise SystemExit(REJECTED)
