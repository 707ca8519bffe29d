"""Static quantisation for OpenVINO: 8 bits for weights and activations, with ranges from calibration texts.

    model = SentenceTransformer("my-model", backend="openvino")
    export_static_quantized_openvino_model(model, None, "my-model")
    file = {"file_name": "openvino_model_qint8_quantized.xml"}
    SentenceTransformer("my-model", backend="openvino", model_kwargs=file)

The graph runs over some hundred texts, and the ranges of its activations are written into the file (NNCF, with
SmoothQuant: Xiao et al. 2022, https://arxiv.org/abs/2211.10438). Dynamic quantisation would look for them at each call.
The texts come from a data set (`dataset_name`, …), best one of the kind that the model is to work on, or from a list
of everyday sentences that is part of this package and needs no network. Re-rankers see pairs of neighbouring texts.

The new file is compared with the old one, on calibration texts in padded batches, before it takes its place.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sentence_transformers.backends.graph_configs import OVQuantizationConfig, settings
from sentence_transformers.backends.graph_quantize import derive, graph_of
from sentence_transformers.backends.openvino import OpenVinoGraph
from sentence_transformers.errors import InputError, MissingExtraError, ModelFormatError

logger = logging.getLogger(__name__)

TEXTS = Path(__file__).with_name("calibration.txt")
TRIED = 16  # texts on which the new file is compared with the old one
LEAST_COSINE = 0.8
"""Mean cosine between the rows of the two graphs below which the new one is refused."""


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
        quantization_config: `graph_configs.OVQuantizationConfig`, a dict of its fields, or None for the defaults.
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
    inputs = inputs_of(model, texts)
    batches = [graph_inputs(graph, model, [one]) for one in inputs]

    def write(path: Path) -> None:
        quantize(nncf, graph, path, config, batches)

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


def inputs_of(model: Any, texts: list[str]) -> list[Any]:
    """What the model reads: the texts, or for a re-ranker each with its neighbour."""
    if not hasattr(model, "predict"):
        return list(texts)
    return list(zip(texts, [*texts[1:], texts[0]], strict=True))


def graph_inputs(graph: OpenVinoGraph, model: Any, inputs: list[Any]) -> dict[str, np.ndarray]:
    """A padded batch as the graph takes it."""
    owner = next(part for part in model.modules() if graph in part.children())
    features = owner.preprocess(inputs)
    return graph.arrays({key: value for key, value in features.items() if hasattr(value, "numpy")})


def quantize(
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
