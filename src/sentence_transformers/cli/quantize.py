"""`quantize`: a file of float vectors -> the same in a byte or a bit per dimension."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentence_transformers.cli import console, options
from sentence_transformers.cli.exit_codes import complain, hush, usage_error
from sentence_transformers.util.atomic import replacing

if TYPE_CHECKING:
    import numpy as np

ROWS = 65536


class Code(StrEnum):
    """Forms of a quantised dimension."""

    int8 = "int8"
    uint8 = "uint8"
    binary = "binary"
    ubinary = "ubinary"


def quantize(
    vectors: Annotated[Path, typer.Argument(metavar="VECTORS.npy", help="Float vectors, as `encode` writes them.")],
    output: options.OutputFile,
    precision: Annotated[Code, typer.Option("--precision", "-p", help="A byte or a bit per dimension.")] = Code.int8,
    ranges: Annotated[
        Path | None,
        typer.Option("--ranges", metavar="FILE.npy", help="Least and greatest value of each dimension, from before."),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Make a file of vectors smaller: four times (int8, uint8) or 32 times (binary, ubinary).

    The ranges of int8 and uint8 are those of the file itself and are written to OUTPUT.ranges.npy: queries and later
    documents need the same (--ranges).

    [bold]Example[/bold]: sentence-transformers quantize articles.npy -o articles.int8.npy --precision int8
    """
    import numpy as np

    from sentence_transformers.errors import InputError
    from sentence_transformers.util import quantize_embeddings

    hush(quiet)
    if not vectors.is_file():
        raise usage_error(f"the file {str(vectors)!r} does not exist.")
    if output.suffix != ".npy" or not output.parent.is_dir():
        raise usage_error(f"{str(output)!r} must be an .npy file in a folder that exists.", "--output")
    source = np.load(vectors, mmap_mode="r", allow_pickle=False)
    if source.ndim != 2 or source.dtype.kind != "f" or not len(source):
        raise InputError(f"{vectors} holds {source.dtype} of shape {source.shape}; float vectors (N, H) are needed.")
    limits: Any = None
    if precision in (Code.int8, Code.uint8):
        limits = np.load(ranges, allow_pickle=False) if ranges else extremes(source)
        if ranges is None:
            with replacing(output.with_suffix(".ranges.npy")) as fresh:
                np.save(fresh, limits)
    first = quantize_embeddings(source[:1].astype(np.float32), str(precision), ranges=limits)  # type: ignore[arg-type]
    shape = (len(source), first.shape[1])  # type: ignore[union-attr]
    with replacing(output) as fresh, console.progress(len(source), unit="vectors", quiet=quiet) as advance:
        target = np.lib.format.open_memmap(fresh, "w+", first.dtype, shape)  # type: ignore[union-attr]
        for start, block in blocks(source):
            coded = quantize_embeddings(block.astype(np.float32), str(precision), ranges=limits)  # type: ignore[arg-type]
            target[start : start + len(block)] = coded
            advance(len(block))
        target.flush()
        del target  # closes the file
    if not quiet:
        before, after = vectors.stat().st_size / 2**20, output.stat().st_size / 2**20
        complain(f"{len(source):,} vectors, {before:,.1f} MiB -> {after:,.1f} MiB, {output}")


def blocks(source: np.ndarray) -> Iterator[tuple[int, Any]]:
    """The rows in blocks, with the number of the first."""
    for start in range(0, len(source), ROWS):
        yield start, source[start : start + ROWS]


def extremes(source: np.ndarray) -> Any:
    """Least and greatest value of each dimension, (2, H)."""
    import numpy as np

    pairs = [(block.min(0), block.max(0)) for _, block in blocks(source)]
    low, high = zip(*pairs, strict=True)
    return np.stack([np.min(low, 0), np.max(high, 0)]).astype(np.float32)
