"""`backend="onnx"`: the transformer computed by ONNX Runtime.

Options (`model_kwargs`): `provider`, e.g. "CUDAExecutionProvider" (default: CUDA if this build of ONNX Runtime has it,
else CPU), `provider_options`, `session_options`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from sentence_transformers.backends.graph import ORIGIN, Graph, threads_and_share
from sentence_transformers.errors import InputError, MissingExtraError, ModelFormatError

INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


def runtime() -> Any:
    """The package `onnxruntime`."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", "backend='onnx'") from error
    return onnxruntime


class OnnxGraph(Graph):
    """A graph in a `.onnx` file."""

    folder = "onnx"
    default_name = "model.onnx"
    on_cpu: ClassVar[dict[str, str]] = {"provider": "CPUExecutionProvider"}

    def _start(self) -> None:
        ort = runtime()
        providers = [provider(ort, self.options.get("provider"))]
        settings = self.options.get("session_options")
        if settings is None:
            settings = ort.SessionOptions()
            settings.intra_op_num_threads = threads_and_share()[1]  # several threads call it
        try:
            session = ort.InferenceSession(
                str(self.path), settings, providers=providers, provider_options=self.options.get("provider_options")
            )
        except Exception as error:
            raise ModelFormatError(
                f"ONNX Runtime cannot open {self.path}: {error} Export it again with model_kwargs={{'export': True}}."
            ) from error
        self._session = session
        self.input_names = [item.name for item in session.get_inputs()]
        self.output_names = [item.name for item in session.get_outputs()]
        self._types = {item.name: INTEGERS.get(item.type) for item in session.get_inputs()}
        shapes = [item.shape for item in session.get_inputs() if item.name == "input_ids"]
        self.fixed = fixed(shapes[0]) if shapes else (None, None)
        self.origin = session.get_modelmeta().custom_metadata_map.get(ORIGIN)

    def _compute(self, arrays: dict[str, np.ndarray], output: str) -> np.ndarray:
        typed = {name: np.ascontiguousarray(array, self._types[name]) for name, array in arrays.items()}
        return self._session.run([output], typed)[0]

    @staticmethod
    def companions(name: str) -> list[str]:
        return [name + "_data", name + ".data"]


def fixed(shape: list[Any]) -> tuple[int | None, int | None]:
    """Texts and tokens of a batch; an open size has a name or None."""
    texts, tokens = (size if isinstance(size, int) and size > 0 else None for size in shape)
    return texts, tokens


def provider(ort: Any, wanted: str | None) -> str:
    """The execution provider.

    Raises:
        InputError: if this build of ONNX Runtime does not have the one wanted.
    """
    available = ort.get_available_providers()
    if wanted is None:
        return next(name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available)
    if wanted not in available:
        raise InputError(f"provider={wanted!r} is not available here; ONNX Runtime has {available}.")
    return wanted
