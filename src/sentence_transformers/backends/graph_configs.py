"""Settings of derived graph files: what is fused, how numbers are stored.

Each function that takes such settings takes a level or a kind of processor by name, one of the classes here, a dict
with their fields, or any object with attributes of these names, such as the configs of the package `optimum`.
Attributes that an object has beyond these are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from sentence_transformers.errors import InputError

Settings = TypeVar("Settings", "OptimizationConfig", "QuantizationConfig", "OVQuantizationConfig")


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
