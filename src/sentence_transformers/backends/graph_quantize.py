"""Smaller or faster files from a model's graph: fused operations, numbers of 8 bits.

    model = SentenceTransformer("my-model", backend="onnx")
    export_optimized_onnx_model(model, "O3", "my-model")                   # my-model/onnx/model_O3.onnx
    export_dynamic_quantized_onnx_model(model, "avx512_vnni", "my-model")  # my-model/onnx/model_qint8_avx512_vnni.onnx
    SentenceTransformer("my-model", backend="onnx", model_kwargs={"file_name": "model_O3.onnx"})

    model = SentenceTransformer("my-model", backend="openvino")
    export_static_quantized_openvino_model(model, None, "my-model")
    file = {"file_name": "openvino_model_qint8_quantized.xml"}
    SentenceTransformer("my-model", backend="openvino", model_kwargs=file)

Each file is opened and tried before it takes its place. O1: what is computed from constants alone is computed once.
O2: layers and attention are fused where ONNX Runtime finds its patterns in the graph. O3: also GELU by its tanh form,
so vectors differ in the fourth digit. O4: O3 in float16, for GPUs.

Dynamic quantisation: weights have a scale per channel, activations are quantised as they come. Static quantisation:
the graph runs over some hundred calibration texts, and the ranges of its activations are written into the file (NNCF,
with SmoothQuant: Xiao et al. 2022, https://arxiv.org/abs/2211.10438). The texts come from a data set (`dataset_name`,
…), best one of the kind that the model is to work on, or from a list of everyday sentences that is part of this package
and needs no network. Re-rankers see pairs of neighbouring texts. The new file is compared with the old one, on
calibration texts in padded batches, before it takes its place.

Settings are a level or a kind of processor by name, one of the classes here, a dict with their fields, or any object
with attributes of these names, such as the configs of the package `optimum`. Attributes that an object has beyond these
are not looked at.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from sentence_transformers.backends.graph import Graph
from sentence_transformers.backends.graph_export import INLINE_BYTES
from sentence_transformers.backends.onnx import OnnxGraph
from sentence_transformers.backends.openvino import OpenVinoGraph
from sentence_transformers.errors import InputError, MissingExtraError, ModelFormatError
from sentence_transformers.storage.saving import atomic_folder

logger = logging.getLogger(__name__)

AnyGraph = TypeVar("AnyGraph", bound=Graph)
Settings = TypeVar("Settings", "OptimizationConfig", "QuantizationConfig", "OVQuantizationConfig")
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
TEXTS = Path(__file__).with_name("calibration.txt")
TRIED = 16  # texts on which a statically quantised file is compared with the old one
LEAST_COSINE = 0.8
"""Mean cosine between the rows of the two graphs below which the new one is refused."""


# ---- settings


@dataclass(frozen=True)
class OptimizationConfig:
    """What ONNX Runtime and its transformer optimizer do to a graph.

    Args:
        optimization_level: 0 nothing, 1 constants and dead nodes, 2 and 99 also fused operations.
        enable_transformers_specific_optimizations: fuse attention, layer norms and GELU by the patterns of
            transformers.
        optimize_with_onnxruntime_only: leave those fusions to the runtime's own list.
        optimize_for_gpu: for a GPU's kernels.
        fp16: weights and arithmetic in float16; inputs and outputs keep their types. For GPUs.
        enable_gelu_approximation: GELU by its tanh form.
        disable_gelu_fusion, …: leave one of the fusions out.
    """

    optimization_level: int = 1
    optimize_for_gpu: bool = False
    fp16: bool = False
    optimize_with_onnxruntime_only: bool = False
    enable_transformers_specific_optimizations: bool = True
    enable_gelu_approximation: bool = False
    disable_gelu_fusion: bool = False
    disable_layer_norm_fusion: bool = False
    disable_attention_fusion: bool = False
    disable_skip_layer_norm_fusion: bool = False
    disable_bias_skip_layer_norm_fusion: bool = False
    disable_bias_gelu_fusion: bool = False
    disable_embed_layer_norm_fusion: bool = False

    def __post_init__(self) -> None:
        if self.optimization_level not in (0, 1, 2, 99):
            raise InputError(f"optimization_level must be 0, 1, 2 or 99, not {self.optimization_level!r}.")


@dataclass(frozen=True)
class QuantizationConfig:
    """How weights of 8 bits are stored; activations are quantised as they come (dynamic).

    Args:
        weights_dtype: "QInt8" or "QUInt8".
        per_channel: a scale per output channel instead of one per matrix.
        reduce_range: 7 of the 8 bits, where sums of products of 8 bits would overflow.
        operators_to_quantize: kinds of operations, e.g. ["MatMul"]; empty for all that can be.
        nodes_to_quantize, nodes_to_exclude: names of nodes.
        is_static: must be False.
    """

    weights_dtype: Literal["QInt8", "QUInt8"] = "QInt8"
    per_channel: bool = True
    reduce_range: bool = False
    operators_to_quantize: tuple[str, ...] = ()
    nodes_to_quantize: tuple[str, ...] = ()
    nodes_to_exclude: tuple[str, ...] = ()
    is_static: bool = False

    def __post_init__(self) -> None:
        name = str(getattr(self.weights_dtype, "name", self.weights_dtype))  # onnxruntime's QuantType has a name
        if name not in ("QInt8", "QUInt8"):
            raise InputError(f"weights_dtype must be QInt8 or QUInt8, not {name!r:.80}.")
        object.__setattr__(self, "weights_dtype", name)
        if self.is_static:
            raise InputError("is_static=True needs calibration; use export_static_quantized_openvino_model.")


@dataclass(frozen=True)
class OVQuantizationConfig:
    """How OpenVINO's graph is quantised, weights and activations, by the ranges that are seen on calibration texts.

    Args:
        bits: 8.
        sym: activations by a scale alone (True), or some by scale and zero point (False); None leaves it to NNCF.
        num_samples: most calibration texts.
        fast_bias_correction: the quick form of the correction of the error's mean.
        smooth_quant_alpha: how much of the activations' outliers goes into the weights, 0 to 1; None for NNCF's
            choice, negative for none.
        ignored_scope: what stays in float, {"names": […], "types": […], "patterns": […]}.
        model_type: "transformer", or None for no rules of that kind.
    """

    bits: int = 8
    sym: bool | None = None
    num_samples: int | None = 300
    fast_bias_correction: bool = True
    smooth_quant_alpha: float | None = None
    ignored_scope: Mapping[str, Any] | None = None
    model_type: str | None = "transformer"

    def __post_init__(self) -> None:
        if self.bits != 8:
            raise InputError(f"bits must be 8, not {self.bits!r}.")
        if self.num_samples is not None and self.num_samples < 1:
            raise InputError(f"num_samples must be at least 1, not {self.num_samples!r}.")


LEVELS = {
    "O1": OptimizationConfig(1, enable_transformers_specific_optimizations=False),
    "O2": OptimizationConfig(2),
    "O3": OptimizationConfig(2, enable_gelu_approximation=True),
    "O4": OptimizationConfig(2, enable_gelu_approximation=True, fp16=True),
}
PROCESSORS = {
    "arm64": QuantizationConfig("QInt8"),
    "avx2": QuantizationConfig("QUInt8"),
    "avx512": QuantizationConfig("QInt8", reduce_range=True),
    "avx512_vnni": QuantizationConfig("QInt8"),
}


def settings(kind: type[Settings], value: Any, argument: str, known: Mapping[str, Settings] | None = None) -> Settings:
    """Settings from a name, a dict, or an object with attributes of their names.

    Args:
        argument: how messages call the value.
        known: the names.

    Raises:
        InputError: for an unknown name or key, or an object without any of the attributes.
    """
    names = [field.name for field in fields(kind)]
    told = f"{argument} must be " + (f"one of {', '.join(known)}, or " if known else "")
    if isinstance(value, str):
        if known is None or value not in known:
            raise InputError(f"{told}{kind.__name__}(…), not {value!r:.80}.")
        return known[value]
    if isinstance(value, kind):
        return value
    if isinstance(value, Mapping):
        if unknown := sorted(value.keys() - set(names)):
            raise InputError(f"{argument} has the unknown keys {unknown}; known are {', '.join(names)}.")
        return kind(**value)
    found = {name: getattr(value, name) for name in names if hasattr(value, name)}
    if not found:
        raise InputError(f"{told}{kind.__name__}(…), not {value!r:.80}.")
    return kind(**{name: given for name, given in found.items() if given is not None or name in OPTIONAL})


OPTIONAL = ("sym", "smooth_quant_alpha", "ignored_scope", "model_type")


# ---- ONNX


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
        optimization_config: the level, or settings: an `OptimizationConfig`.
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
        quantization_config: the kind of processor, or settings: a `QuantizationConfig`.
        file_suffix: default the type and the processor, such as "qint8_arm64" and "quint8_avx2", or "quantized".
    """
    config = settings(QuantizationConfig, quantization_config, "quantization_config", PROCESSORS)
    graph = graph_of(model, OnnxGraph)
    processor = quantization_config if isinstance(quantization_config, str) else "quantized"
    suffix = file_suffix or f"{config.weights_dtype.lower()}_{processor}"

    def write(path: Path) -> None:
        quantize_dynamic(graph, path, config)

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


def quantize_dynamic(graph: OnnxGraph, target: Path, config: QuantizationConfig) -> None:
    """Write the graph with weights of 8 bits."""
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx", "Quantising an ONNX file") from error
    quantization.quantize_dynamic(
        str(graph.path),
        str(target),
        op_types_to_quantize=list(config.operators_to_quantize) or None,
        nodes_to_quantize=list(config.nodes_to_quantize) or None,
        nodes_to_exclude=list(config.nodes_to_exclude) or None,
        per_channel=config.per_channel,
        reduce_range=config.reduce_range,
        weight_type=quantization.QuantType[config.weights_dtype],
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


# ---- OpenVINO


def export_static_quantized_openvino_model(
    model: Any,
    quantization_config: Any,
    model_name_or_path: str,
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    dataset_split: str | None = None,
    column_name: str | None = None,
    push_to_hub: bool = False,
    create_pr: bool = False,
    file_suffix: str = "qint8_quantized",
) -> None:
    """Write `openvino/openvino_model_qint8_quantized.xml`: the model's graph in 8 bits.

    Args:
        model: an encoder or re-ranker loaded with `backend="openvino"`.
        quantization_config: an `OVQuantizationConfig`, a dict of its fields, or None for the defaults.
        model_name_or_path: the folder of the model, or its hub id with `push_to_hub`.
        dataset_name, dataset_config_name, dataset_split, column_name: calibration texts, a text column of a data set
            as `datasets.load_dataset` names it; all but the config name, or none. Default: texts of this package.
        push_to_hub: whether the files are uploaded.
        create_pr: upload as a pull request.
        file_suffix: what follows "openvino_model_".

    Raises:
        InputError: for settings that cannot be, or a model of another backend.
        MissingExtraError: if nncf, or for a data set datasets, is not installed.
        ModelFormatError: if the new file gives other vectors than the old one.
    """
    config = settings(OVQuantizationConfig, quantization_config or {}, "quantization_config")
    graph = graph_of(model, OpenVinoGraph)
    nncf = quantizer()
    texts = calibration_texts(dataset_name, dataset_config_name, dataset_split, column_name, config.num_samples)
    inputs = calibration_inputs(model, texts)
    batches = [graph_inputs(graph, model, [one]) for one in inputs]

    def write(path: Path) -> None:
        quantize_static(nncf, graph, path, config, batches)

    def check(made: OpenVinoGraph) -> None:
        compare(graph, made, model, inputs[:TRIED])

    name = f"openvino_model_{file_suffix}.xml"
    derive(graph, write, name, model_name_or_path, push_to_hub, create_pr, check)


def quantizer() -> Any:
    """The package `nncf`, without its reports of usage to its makers."""
    fresh = "NNCF_CI" not in os.environ
    if fresh:
        os.environ["NNCF_CI"] = "1"  # read once, when it is imported
    try:
        import nncf
    except ImportError as error:
        raise MissingExtraError("nncf", "openvino", "Static quantisation for OpenVINO") from error
    finally:
        if fresh:
            del os.environ["NNCF_CI"]
    return nncf


def calibration_texts(
    name: str | None, config: str | None, split: str | None, column: str | None, count: int | None
) -> list[str]:
    """Texts of a data set, or those of this package: its lines, then two and four neighbouring lines as one text."""
    if not any((name, config, split, column)):
        lines = TEXTS.read_text(encoding="utf-8").splitlines()
        runs = [" ".join(lines[i : i + n]) for n in (2, 4) for i in range(0, len(lines), n)]
        return spread(lines + runs, count)
    if not (name and split and column):
        raise InputError(
            "Calibration texts from a data set need dataset_name, dataset_split and column_name "
            f"(dataset_config_name where it has several); given are {name!r}, {split!r} and {column!r}."
        )
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtraError("datasets", "train", "Calibration with a data set") from error
    rows = load_dataset(name, config, split=split)
    if column not in rows.column_names:
        raise InputError(f"{name} has no column {column!r}; it has {rows.column_names}.")
    rows = rows.select(range(min(count or len(rows), len(rows))))
    texts = [text for text in rows[column] if isinstance(text, str) and text.strip()]
    if not texts:
        raise InputError(f"The column {column!r} of {name} holds no texts.")
    return texts


def spread(texts: list[str], count: int | None) -> list[str]:
    """At most `count` of the texts, evenly spread over the list."""
    if count is None or count >= len(texts):
        return texts
    return [texts[i * len(texts) // count] for i in range(count)]


def calibration_inputs(model: Any, texts: list[str]) -> list[Any]:
    """What the model reads: the texts, or for a re-ranker each with its neighbour."""
    if not hasattr(model, "predict"):
        return list(texts)
    return list(zip(texts, [*texts[1:], texts[0]], strict=True))


def graph_inputs(graph: OpenVinoGraph, model: Any, inputs: list[Any]) -> dict[str, np.ndarray]:
    """A padded batch as the graph takes it."""
    owner = next(part for part in model.modules() if graph in part.children())
    features = owner.preprocess(inputs)
    return graph.arrays({key: value for key, value in features.items() if hasattr(value, "numpy")})


def quantize_static(
    nncf: Any, graph: OpenVinoGraph, target: Path, config: OVQuantizationConfig, batches: list[dict[str, np.ndarray]]
) -> None:
    """Write the graph with weights and activations of 8 bits."""
    import openvino

    presets = {None: None, True: nncf.QuantizationPreset.PERFORMANCE, False: nncf.QuantizationPreset.MIXED}
    advanced = nncf.AdvancedQuantizationParameters()
    if config.smooth_quant_alpha is not None:
        advanced.smooth_quant_alphas.matmul = config.smooth_quant_alpha
    with quiet():
        made = nncf.quantize(
            openvino.Core().read_model(str(graph.path)),
            nncf.Dataset(batches),
            preset=presets[config.sym],
            subset_size=len(batches),
            fast_bias_correction=config.fast_bias_correction,
            model_type=nncf.ModelType.TRANSFORMER if config.model_type == "transformer" else None,
            ignored_scope=nncf.IgnoredScope(**config.ignored_scope) if config.ignored_scope else None,
            advanced_parameters=advanced,
        )
    openvino.save_model(made, str(target), compress_to_fp16=False)


def compare(graph: OpenVinoGraph, made: OpenVinoGraph, model: Any, inputs: list[Any]) -> float:
    """Mean cosine between the rows of two graphs; `ModelFormatError` if the second has lost the first's."""
    cosines = []
    for start in range(0, len(inputs), 4):
        arrays = graph_inputs(graph, model, inputs[start : start + 4])
        first, second = (np.asarray(one.run(arrays), np.float64) for one in (graph, made))
        if first.ndim == 3:
            rows = arrays["attention_mask"].astype(bool)
            first, second = first[rows], second[rows]
        norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
        cosines.append((first * second).sum(-1) / np.maximum(norms, 1e-12))
    mean = float(np.concatenate(cosines).mean())
    if not mean >= LEAST_COSINE:
        raise ModelFormatError(
            f"The quantised graph of {graph.path} gives other vectors: their mean cosine with the old ones is "
            f"{mean:.3f}, at least {LEAST_COSINE} is needed. Leave parts in float with "
            "quantization_config={'ignored_scope': {'patterns': […]}}, or calibrate with texts of the model's kind."
        )
    logger.info("Quantised graph: mean cosine %.4f with the vectors before.", mean)
    return mean


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out the progress bars and notes of NNCF."""
    log = logging.getLogger("nncf")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(level)
