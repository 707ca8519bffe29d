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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from sentence_transformers.backends.graph import Graph
from sentence_transformers.backends.graph_configs import (
    LEVELS,
    PROCESSORS,
    OptimizationConfig,
    QuantizationConfig,
    settings,
)
from sentence_transformers.backends.graph_export import INLINE_BYTES
from sentence_transformers.backends.onnx import OnnxGraph
from sentence_transformers.errors import InputError, MissingExtraError
from sentence_transformers.storage.saving import atomic_folder

AnyGraph = TypeVar("AnyGraph", bound=Graph)
BACKENDS = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
FUSIONS = (
    "gelu",
    "layer_norm",
    "attention",
    "skip_layer_norm",
    "bias_skip_layer_norm",
    "bias_gelu",
    "embed_layer_norm",
)


def export_optimized_onnx_model(
    model: Any,
    optimization_config: OptimizationConfig | Literal["O1", "O2", "O3", "O4"] | Any,
    model_name_or_path: str,
    push_to_hub: bool = False,
    create_pr: bool = False,
    file_suffix: str | None = None,
) -> None:
    """Write `onnx/model_O3.onnx`: the model's graph with fused operations.

    Args:
        model: an encoder or re-ranker loaded with `backend="onnx"`.
        optimization_config: the level, or settings of its own (`backends.graph_configs`).
        model_name_or_path: the folder of the model, or its hub id with `push_to_hub`.
        push_to_hub: whether the file is uploaded.
        create_pr: upload as a pull request.
        file_suffix: what follows "model_"; default the level, or "optimized".

    Raises:
        InputError: for another level, or a model of another backend.
    """
    config = settings(OptimizationConfig, optimization_config, "optimization_config", LEVELS)
    graph = graph_of(model, OnnxGraph)
    suffix = file_suffix or (optimization_config if isinstance(optimization_config, str) else "optimized")

    def write(path: Path) -> None:
        optimize(graph, path, config)

    derive(graph, write, f"model_{suffix}.onnx", model_name_or_path, push_to_hub, create_pr)


def export_dynamic_quantized_onnx_model(
    model: Any,
    quantization_config: QuantizationConfig | Literal["arm64", "avx2", "avx512", "avx512_vnni"] | Any,
    model_name_or_path: str,
    push_to_hub: bool = False,
    create_pr: bool = False,
    file_suffix: str | None = None,
) -> None:
    """Write `onnx/model_qint8_avx512_vnni.onnx`: the model's graph with weights of 8 bits; see
    `export_optimized_onnx_model`.

    Args:
        quantization_config: the kind of processor, or settings of its own (`backends.graph_configs`).
        file_suffix: default the type and the processor, such as "qint8_arm64" and "quint8_avx2", or "quantized".
    """
    config = settings(QuantizationConfig, quantization_config, "quantization_config", PROCESSORS)
    graph = graph_of(model, OnnxGraph)
    processor = quantization_config if isinstance(quantization_config, str) else "quantized"
    suffix = file_suffix or f"{config.weights_dtype.lower()}_{processor}"

    def write(path: Path) -> None:
        quantize(graph, path, config)

    derive(graph, write, f"model_{suffix}.onnx", model_name_or_path, push_to_hub, create_pr)


def graph_of(model: Any, kind: type[AnyGraph]) -> AnyGraph:
    """The graph of a kind inside an encoder."""
    found = next((part for part in model.modules() if isinstance(part, kind)), None)
    if found is None:
        raise InputError(f'The model is not computed by {BACKENDS[kind.folder]}; load it with backend="{kind.folder}".')
    return found


def optimize(graph: OnnxGraph, target: Path, config: OptimizationConfig) -> None:
    """Write the graph with fused operations."""
    try:
        from onnxruntime.transformers.fusion_options import FusionOptions
        from onnxruntime.transformers.optimizer import optimize_model
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx", "Optimising an ONNX file") from error
    options, text = FusionOptions("bert"), graph.config.get_text_config()
    options.enable_gelu_approximation = config.enable_gelu_approximation
    for name in FUSIONS:
        if getattr(config, f"disable_{name}_fusion"):
            setattr(options, f"enable_{name}", False)
    made = optimize_model(
        str(graph.path),
        "bert",
        getattr(text, "num_attention_heads", 0),
        text.hidden_size,
        options,
        opt_level=config.optimization_level,
        use_gpu=config.optimize_for_gpu,
        only_onnxruntime=config.optimize_with_onnxruntime_only or not config.enable_transformers_specific_optimizations,
    )
    if config.fp16:
        made.convert_float_to_float16(keep_io_types=True)
    made.save_model_to_file(str(target), use_external_data_format=size_of(graph) > INLINE_BYTES)


def quantize(graph: OnnxGraph, target: Path, config: QuantizationConfig) -> None:
    """Write the graph with weights of 8 bits."""
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx", "Quantising an ONNX file") from error
    quantize_dynamic(
        str(graph.path),
        str(target),
        op_types_to_quantize=list(config.operators_to_quantize) or None,
        nodes_to_quantize=list(config.nodes_to_quantize) or None,
        nodes_to_exclude=list(config.nodes_to_exclude) or None,
        per_channel=config.per_channel,
        reduce_range=config.reduce_range,
        weight_type=QuantType[config.weights_dtype],
        use_external_data_format=size_of(graph) > INLINE_BYTES,
    )


def size_of(graph: Graph) -> int:
    """Bytes of a graph's files."""
    return sum(file.stat().st_size for file in graph.files())


def derive(
    graph: AnyGraph,
    write: Callable[[Path], None],
    name: str,
    model: str,
    push_to_hub: bool,
    create_pr: bool,
    check: Callable[[AnyGraph], Any] | None = None,
) -> None:
    """Write a file, try it, and put it into `onnx/` or `openvino/` of a folder or a hub repository.

    Args:
        write: makes the file at a path.
        name: of the file.
        model: the folder, or the hub id.
        check: raises if the made graph is not good.
    """
    if Path(name).name != name:
        raise InputError(f"file_suffix makes the file name {name!r}; a name has no slashes.")
    with tempfile.TemporaryDirectory() if push_to_hub else atomic_folder(model) as folder:
        path = Path(folder, graph.folder, name)
        path.parent.mkdir()
        write(path)
        made = type(graph)(path, graph.config, graph.task, graph.on_cpu)
        if check is not None:
            check(made)
        if push_to_hub:
            upload(made.files(), model, graph.folder, create_pr)


def upload(files: Sequence[Path], repo_id: str, folder: str, create_pr: bool, description: str | None = None) -> None:
    """Add files to a hub repository in one commit."""
    from huggingface_hub import CommitOperationAdd, HfApi

    adds = [CommitOperationAdd(f"{folder}/{file.name}", str(file)) for file in files]
    HfApi(library_name="sentence-transformers").create_commit(
        repo_id,
        adds,
        commit_message=f"Add {folder}/{files[0].name}",
        commit_description=description,
        create_pr=create_pr,
    )
