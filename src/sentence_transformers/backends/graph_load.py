"""The graph of a model: its file where it has one, else exported, verified, and kept until the model is saved."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentence_transformers.backends.graph import Graph, check_task, find
from sentence_transformers.backends.graph_export import inputs_of, scratch_folder, to_onnx, verify
from sentence_transformers.backends.onnx import OnnxGraph, runtime
from sentence_transformers.backends.openvino import OpenVinoGraph
from sentence_transformers.backends.openvino import runtime as openvino_runtime
from sentence_transformers.backends.pretrained import Checkpoint
from sentence_transformers.backends.tasks import TASKS
from sentence_transformers.errors import ModelFormatError
from sentence_transformers.storage.files import Source, on_the_hub
from sentence_transformers.storage.fingerprint import of_files

logger = logging.getLogger(__name__)

KINDS: dict[str, type[Graph]] = {"onnx": OnnxGraph, "openvino": OpenVinoGraph}
DEFAULT_INPUTS = ["input_ids", "token_type_ids", "attention_mask"]


def load_onnx_model(model_name_or_path: str, config: Any, task_name: str, **model_kwargs: Any) -> OnnxGraph:
    """The ONNX graph of a model.

    Args:
        model_name_or_path: a folder or hub id.
        config: its transformers config.
        task_name: "feature-extraction", "fill-mask", "sequence-classification" or "text-generation".
        model_kwargs: `file_name` (default "model.onnx"), `subfolder`, `export` (True: always, False: never, default:
            if there is no file), `provider`, `provider_options`, `session_options`, and hub arguments.

    Raises:
        ModelFormatError: if the file is of another model, an export differs from the model, or there is no file and
            `export` is False.
        MissingExtraError: if onnxruntime, or for an export onnxscript, is not installed.
    """
    runtime()
    graph = load("onnx", model_name_or_path, config, task_name, model_kwargs)
    assert isinstance(graph, OnnxGraph)
    return graph


def load_openvino_model(model_name_or_path: str, config: Any, task_name: str, **model_kwargs: Any) -> OpenVinoGraph:
    """The OpenVINO graph of a model; as `load_onnx_model`, with `ov_config` and `device` for the runtime, and
    `file_name` "openvino_model.xml".
    """
    openvino_runtime()
    graph = load("openvino", model_name_or_path, config, task_name, model_kwargs)
    assert isinstance(graph, OpenVinoGraph)
    return graph


def load(backend: str, name: str, config: Any, task: str, model_kwargs: dict[str, Any]) -> Graph:
    """The graph of a model for one of `KINDS`."""
    check_task(task)
    kind, kwargs = KINDS[backend], dict(model_kwargs)
    export, file_name = kwargs.pop("export", None), kwargs.pop("file_name", None)
    model_folder = kwargs.pop("model_subfolder", "")
    tokenizer_inputs = kwargs.pop("tokenizer_inputs", DEFAULT_INPUTS)
    options = {key: kwargs.pop(key) for key in OPTIONS if key in kwargs}
    subfolder = kwargs.get("subfolder") or ""
    source = Source(
        name, subfolder, kwargs.get("token"), kwargs.get("cache_dir"), kwargs.get("revision"),
        bool(kwargs.get("local_files_only")),
    )  # fmt: skip
    weights = replace(source, subfolder=model_folder)
    path = None if export else find(source, kind, file_name)
    if path is None and not export and (remote := on_the_hub(source)):
        path = find(remote, kind, file_name)
    if path is not None:
        graph = kind(path, config, task, options)
        check_origin(graph.origin, weights, graph.path)
        return graph
    if export is False:
        raise missing(name, kind, file_name)
    if export is None:
        logger.warning(
            "%s has no file %s: it is exported now, and kept if the model is saved "
            "(model.save_pretrained(folder), or model.push_to_hub(name)).",
            name,
            file_name or kind.default_name,
        )
    checkpoint = Checkpoint(
        name, TASKS[task].auto_class, name, kwargs | ({"subfolder": model_folder} if subfolder else {})
    )
    model = checkpoint.model()
    of_weights = json.dumps(of_files(weights), separators=(",", ":"), sort_keys=True)
    return exported(kind, model, config, task, tokenizer_inputs, options, of_weights)


def exported(
    kind: type[Graph],
    model: Any,
    config: Any,
    task: str,
    tokenizer_inputs: list[str],
    options: dict[str, Any],
    origin: str,
) -> Graph:
    """A graph made from a transformers model, and verified; `origin` is the fingerprint of its weights."""
    names = inputs_of(model, tokenizer_inputs)
    path = scratch_folder() / OnnxGraph.default_name
    to_onnx(model, names, task, path, origin)
    path = kind.from_onnx(path, origin)
    graph = kind(path, config, task, options)
    difference = verify(graph, model, names)
    logger.info("Exported to %s; the largest difference from torch is %.2g.", path, difference)
    return graph


def check_origin(origin: str | None, source: Source, path: Path) -> None:
    """Raise `ModelFormatError` if a graph was exported from other weights than those of its folder.

    Args:
        origin: what the graph's file says; None for files made by others.
        source: the folder of the weights.
        path: of the graph.
    """
    if not origin:
        return
    try:
        exported: Any = json.loads(origin)
    except ValueError:
        return
    if not isinstance(exported, dict):
        return
    now = of_files(source)
    for name in sorted(now.keys() & exported.keys()):
        then = str(exported[name])
        if then != now[name] and then.partition(":")[0] == now[name].partition(":")[0]:
            raise ModelFormatError(
                f"{path} was exported from other weights than those of {source.name} today: {name} differs. The model "
                "was trained or replaced since. Export it again with model_kwargs={'export': True} and save the model, "
                "or delete the file."
            )


def missing(name: str, kind: type[Graph], file_name: str | None) -> Exception:
    """There is no file and no export is allowed; the message has the files that there are."""
    from sentence_transformers.errors import ModelNotFoundError

    ending = Path(kind.default_name).suffix
    files = Path(name).rglob(f"*{ending}") if Path(name).is_dir() else ()
    there = sorted(str(path.relative_to(name)) for path in files)
    return ModelNotFoundError(
        f"{name} has no {file_name or kind.default_name}, neither beside its config nor in {kind.folder}/; "
        f"it has {there or 'no such files'}. Leave out export=False to export it."
    )


OPTIONS = ("provider", "provider_options", "session_options", "ov_config", "device")
