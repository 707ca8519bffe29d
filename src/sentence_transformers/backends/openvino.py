"""`backend="openvino"`: the transformer computed by OpenVINO, in float32.

Options (`model_kwargs`): `ov_config`, OpenVINO's settings as a dict or the path of a JSON file of them, and `device`
(default "CPU"). An export goes through ONNX.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sentence_transformers.backends.graph import KNOWN_INPUTS, ORIGIN, SHARED_OUTPUTS, Graph, threads_and_share
from sentence_transformers.backends.tasks import TASKS
from sentence_transformers.errors import InputError, MissingExtraError, ModelFormatError
from sentence_transformers.storage.files import read_json

KNOWN = {*KNOWN_INPUTS, *(task.output for task in TASKS.values()), *SHARED_OUTPUTS}


def runtime() -> Any:
    """The package `openvino`."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino", "backend='openvino'") from error
    return openvino


class OpenVinoGraph(Graph):
    """A graph in a `.xml` file, its weights in a `.bin` file beside it."""

    folder = "openvino"
    default_name = "openvino_model.xml"
    on_cpu: ClassVar[dict[str, str]] = {"device": "CPU"}
    not_pickled = ("_session", "_idle")

    @staticmethod
    def companions(name: str) -> list[str]:
        return [str(Path(name).with_suffix(".bin"))]

    @classmethod
    def from_onnx(cls, path: Path, origin: str) -> Path:
        ov, target = runtime(), path.with_name(cls.default_name)
        model = ov.convert_model(str(path))
        model.set_rt_info(origin, ORIGIN)
        ov.save_model(model, str(target), compress_to_fp16=False)
        return target

    def _start(self) -> None:
        ov, settings = runtime(), self._settings()
        try:
            core = ov.Core()
            model = core.read_model(str(self.path))
            self._session = core.compile_model(model, self._device(), settings)
        except Exception as error:
            raise ModelFormatError(
                f"OpenVINO cannot open {self.path} with {settings} on {self._device()}: {error} "
                "Export it again with model_kwargs={'export': True}."
            ) from error
        self._idle: list[Any] = []
        self._types = {name_of(port): port.get_element_type().to_dtype() for port in self._session.inputs}
        self.input_names = list(self._types)
        shapes = [port.get_partial_shape() for port in self._session.inputs if name_of(port) == "input_ids"]
        self.fixed = fixed(shapes[0]) if shapes else (None, None)
        self.origin = model.get_rt_info(ORIGIN).value if model.has_rt_info(ORIGIN) else None
        self.output_names = [name_of(port) for port in self._session.outputs]

    def _device(self) -> str:
        return str(self.options.get("device") or "CPU")

    def _settings(self) -> dict[str, Any]:
        """What is given, over float32 and the threads of the engine."""
        given = self.options.get("ov_config") or {}
        if isinstance(given, str | Path):
            given = read_json(given)
        if not isinstance(given, dict):
            raise InputError(f"ov_config must be a dict or the path of a JSON file of one, not {given!r:.80}.")
        count, share = threads_and_share()
        own: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if self._device() == "CPU":
            own |= {"NUM_STREAMS": count, "INFERENCE_NUM_THREADS": count * share}
        return own | given

    def _compute(self, arrays: dict[str, np.ndarray], output: str) -> np.ndarray:
        typed = {name: np.ascontiguousarray(array, self._types[name]) for name, array in arrays.items()}
        try:  # one for each thread; it keeps its memory, and making it anew costs a fifth of the time
            request = self._idle.pop()
        except IndexError:
            request = self._session.create_infer_request()
        request.infer(typed, share_inputs=True)
        value = request.get_output_tensor(self.output_names.index(output)).data.copy()
        self._idle.append(request)
        return value


def fixed(shape: Any) -> tuple[int | None, int | None]:
    """Texts and tokens of a batch, where the file says how many."""
    texts, tokens = (size.get_length() if size.is_static else None for size in shape)
    return texts, tokens


def name_of(port: Any) -> str:
    """The name of an input or output, of several that one which is known."""
    names = sorted(port.get_names())
    return next((name for name in names if name in KNOWN), names[0] if names else "")
