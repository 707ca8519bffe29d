"""Smaller or faster files from a model's ONNX file: fused operations, weights of 8 bits.

    model = SentenceTransformer("my-model", backend="onnx")
    export_optimized_onnx_model(model, "O3", "my-model")                   # my-model/onnx/model_O3.onnx
    export_dynamic_quantized_onnx_model(model, "avx512_vnni", "my-model")  # my-model/onnx/model_qint8_avx512_vnni.onnx
    SentenceTransformer("my-model", backend="onnx", model_kwargs={"file_name": "model_O3.onnx"})

Each file is opened and tried before it takes its place. O1: what is computed from constants alone is computed once.
O2: layers and attention are fused where ONNX Runtime finds its patterns in the graph. O3: also GELU by its tanh form,
so vectors differ in the fourth digit. O4: O3 in float16, for GPUs. Quantised weights have a scale per channel;
activations are quantised as they come.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sentence_transformers.backends.export import INLINE_BYTES
from sentence_transformers.backends.onnx import OnnxGraph
from sentence_transformers.errors import InputError, MissingExtraError

LEVELS = {"O1": 1, "O2": 2, "O3": 2, "O4": 2}


class Weights(NamedTuple):
    """How weights are stored for a kind of processor.

    Attributes:
        type: name of the integers.
        reduce_range: 7 of the 8 bits, where sums of products of 8 bits would overflow.
    """

    type: Literal["QInt8", "QUInt8"]
    reduce_range: bool = False


PROCESSORS = {
    "arm64": Weights("QInt8"),
    "avx2": Weights("QUInt8"),
    "avx512": Weights("QInt8", reduce_range=True),
    "avx512_vnni": Weights("QInt8"),
}


def export_optimized_onnx_model(
    model: Any,
    optimization_config: Literal["O1", "O2", "O3", "O4"],
    model_name_or_path: str,
    push_to_hub: bool = False,
    create_pr: bool = False,
    file_suffix: str | None = None,
) -> None:
    """Write `onnx/model_O3.onnx`: the model's graph with fused operations.

    Args:
        model: an encoder or re-ranker loaded with `backend="onnx"`.
        optimization_config: the level.
        model_name_or_path: the folder of the model, or its hub id with `push_to_hub`.
        push_to_hub: whether the file is uploaded.
        create_pr: upload as a pull request.
        file_suffix: what follows "model_"; default the level.

    Raises:
        InputError: for another level, or a model of another backend.
    """
    level = one_of(LEVELS, optimization_config, "optimization_config")
    graph = graph_of(model)
    suffix = file_suffix or str(optimization_config)

    def write(path: Path) -> None:
        optimize(graph, path, level, str(optimization_config))

    derive(graph, write, f"model_{suffix}.onnx", model_name_or_path, push_to_hub, create_pr)


def export_dynamic_quantized_onnx_model(
    model: Any,
    quantization_config: Literal["arm64", "avx2", "avx512", "avx512_vnni"],
    model_name_or_path: str,
    push_to_hub: bool = False,
    create_pr: bool = False,
    file_suffix: str | None = None,
) -> None:
    """Write `onnx/model_qint8_avx512_vnni.onnx`: the model's graph with weights of 8 bits; see
    `export_optimized_onnx_model`.

    Args:
        quantization_config: the kind of processor.
        file_suffix: default the type and the processor, such as "qint8_arm64" and "quint8_avx2".
    """
    weights = one_of(PROCESSORS, quantization_config, "quantization_config")
    graph = graph_of(model)
    suffix = file_suffix or f"{weights.type.lower()}_{quantization_config}"

    def write(path: Path) -> None:
        quantize(graph, path, weights)

    derive(graph, write, f"model_{suffix}.onnx", model_name_or_path, push_to_hub, create_pr)


def one_of(known: dict[str, Any], value: Any, argument: str) -> Any:
    """The entry of a table; `InputError` names the known keys."""
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{argument} must be one of {', '.join(known)}, not {value!r:.80}.")
    return known[value]


def graph_of(model: Any) -> OnnxGraph:
    """The ONNX graph inside an encoder."""
    found = next((part for part in model.modules() if isinstance(part, OnnxGraph)), None)
    if found is None:
        raise InputError('The model is not computed by ONNX Runtime; load it with backend="onnx".')
    return found


def optimize(graph: OnnxGraph, target: Path, level: int, name: str) -> None:
    """Write the graph with fused operations."""
    try:
        from onnxruntime.transformers.fusion_options import FusionOptions
        from onnxruntime.transformers.optimizer import optimize_model
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx", "Optimising an ONNX file") from error
    options, text = FusionOptions("bert"), graph.config.get_text_config()
    options.enable_gelu_approximation = name in ("O3", "O4")
    made = optimize_model(
        str(graph.path),
        "bert",
        getattr(text, "num_attention_heads", 0),
        text.hidden_size,
        options,
        opt_level=level,
        only_onnxruntime=name == "O1",
    )
    if name == "O4":
        made.convert_float_to_float16(keep_io_types=True)
    made.save_model_to_file(str(target), use_external_data_format=size_of(graph) > INLINE_BYTES)


def quantize(graph: OnnxGraph, target: Path, weights: Weights) -> None:
    """Write the graph with weights of 8 bits."""
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx", "Quantising an ONNX file") from error
    quantize_dynamic(
        str(graph.path),
        str(target),
        per_channel=True,
        reduce_range=weights.reduce_range,
        weight_type=QuantType[weights.type],
        use_external_data_format=size_of(graph) > INLINE_BYTES,
    )


def size_of(graph: OnnxGraph) -> int:
    """Bytes of a graph's files."""
    return sum(file.stat().st_size for file in graph.files())


def derive(
    graph: OnnxGraph, write: Callable[[Path], None], name: str, model: str, push_to_hub: bool, create_pr: bool
) -> None:
    """Write a file, try it, and put it into `onnx/` of a folder or a hub repository."""
    if Path(name).name != name:
        raise InputError(f"file_suffix makes the file name {name!r}; a name has no slashes.")
    target = Path(tempfile.gettempdir()) if push_to_hub else Path(model, graph.folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".") as folder:
        path = Path(folder, name)
        write(path)
        made = OnnxGraph(path, graph.config, graph.task, {"provider": "CPUExecutionProvider"})
        files = made.files()
        if push_to_hub:
            upload(files, model, graph.folder, create_pr)
            return
        for file in reversed(files):  # the graph last: its weights are there before it
            file.replace(target / file.name)


def upload(files: list[Path], repo_id: str, folder: str, create_pr: bool) -> None:
    """Add files to a hub repository in one commit."""
    from huggingface_hub import CommitOperationAdd, HfApi

    adds = [CommitOperationAdd(f"{folder}/{file.name}", str(file)) for file in files]
    HfApi(library_name="sentence-transformers").create_commit(
        repo_id, adds, commit_message=f"Add {folder}/{files[0].name}", create_pr=create_pr
    )
