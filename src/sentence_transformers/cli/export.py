"""`export`: a model as a graph of ONNX Runtime or OpenVINO, faster or smaller if asked for."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentence_transformers.cli import options
from sentence_transformers.cli.exit_codes import complain, usage_error

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder


class Runtime(StrEnum):
    """What the graph is for."""

    onnx = "onnx"
    openvino = "openvino"


class Level(StrEnum):
    """How much is fused."""

    O1 = "O1"
    O2 = "O2"
    O3 = "O3"
    O4 = "O4"


class Processor(StrEnum):
    """What an 8-bit graph is for."""

    arm64 = "arm64"
    avx2 = "avx2"
    avx512 = "avx512"
    avx512_vnni = "avx512_vnni"
    int8 = "int8"


def export(
    model: options.ModelArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the model and its graph.")
    ],
    backend: Annotated[Runtime, typer.Option("--backend", help="What will compute the graph.")] = Runtime.onnx,
    optimize: Annotated[
        Level | None, typer.Option("--optimize", help="Fused operations (ONNX); O4 is float16, for GPUs.")
    ] = None,
    quantize: Annotated[
        Processor | None,
        typer.Option("--quantize", help="8 bits, for a kind of processor (ONNX), or int8 (OpenVINO, calibrated)."),
    ] = None,
    kind: options.KindOption = None,
    revision: options.Revision = None,
    offline: options.Offline = False,
    trust_remote_code: options.Trust = False,
) -> None:
    """Write a model with its graph: exported, compared with torch, optimised or in 8 bits if asked for.

    [bold]Example[/bold]: sentence-transformers export all-MiniLM-L6-v2 -o minilm --quantize avx512_vnni
    """
    check(output, backend, optimize, quantize)
    from sentence_transformers.cli.models import Loading, kind_of, load

    loading = Loading("cpu", backend, revision, offline, trust_remote_code)
    loaded: Any = load(model, loading, kind or kind_of(model, loading))
    loaded.save_pretrained(str(output))
    derive(loaded, output, optimize, quantize)
    for file in sorted((output / backend).iterdir()):
        complain(f"{file}: {file.stat().st_size / 2**20:,.1f} MiB")


def check(output: Path, backend: Runtime, optimize: Level | None, quantize: Processor | None) -> None:
    """A usage error for options that do not go together."""
    if output.is_file():
        raise usage_error(f"{str(output)!r} is a file; a folder is needed.", "--output")
    if optimize and backend != Runtime.onnx:
        raise usage_error("is for --backend onnx; OpenVINO optimises a graph when it opens it.", "--optimize")
    if quantize and (quantize == Processor.int8) != (backend == Runtime.openvino):
        known = "int8" if backend == Runtime.openvino else "arm64, avx2, avx512, avx512_vnni"
        raise usage_error(f"for --backend {backend} is one of: {known}.", "--quantize")


def derive(
    model: SentenceTransformer | SparseEncoder | CrossEncoder,
    output: Path,
    optimize: Level | None,
    quantize: Processor | None,
) -> None:
    """The files that are made from the graph."""
    from sentence_transformers import util

    if optimize:
        util.export_optimized_onnx_model(model, str(optimize), str(output))  # type: ignore[arg-type]
    if quantize == Processor.int8:
        util.export_static_quantized_openvino_model(model, None, str(output))
    elif quantize:
        util.export_dynamic_quantized_onnx_model(model, str(quantize), str(output))
