"""Linear layers whose weights are laid out once for the CPU's matrix kernels.

A plain `F.linear` on CPU re-arranges its weight at every call. oneDNN can do it once: the product then starts at once,
which counts most for short inputs (one query reads all weights to multiply a few rows). `prepack` gives the `nn.Linear`
layers of a model that ability by a `forward` of their own; class, parameters, names and `state_dict` stay as they are.

The packed copy is made at the first call without gradients and made again whenever the weight changes, however it does
(`backends.write_detection`). With gradients, in training, on other devices, inside `torch.compile`, for unusual types,
and where changes of the weight could go unseen, the layer is an ordinary linear layer. Weights in bfloat16 or float16
on a CPU without such arithmetic are packed as float32, which gives results at least as precise and many times faster
than emulating it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.backends.override_detection import has_mode
from sentence_transformers.backends.write_detection import Watch, can_be_watched, own_memory, watch

PACK_LIMIT_BYTES = 2 * 2**30  # the packed copy doubles a layer's memory; models beyond this stay as they are
METHOD, FUNCTION = nn.Linear.forward, F.linear  # PyTorch's
ROWS_HINT = 1024  # number of rows the layout is chosen for


class LayerForward:
    """The forward pass of one layer in the place of its class's: `layer.forward = PackedForward(layer)`.

    A copy of the layer gets one of its own, also through pickle.

    Attributes:
        exact: whether it computes what the layer's class does.
    """

    exact = True

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = weakref.ref(layer)  # a layer that nobody needs any more is gone at once

    @property
    def layer(self) -> nn.Linear:
        layer = self._layer()
        assert layer is not None
        return layer

    def __call__(self, input: Tensor) -> Tensor:
        return nn.Linear.forward(self.layer, input)

    def __deepcopy__(self, memo: dict[int, Any]) -> LayerForward:
        return type(self)(memo.get(id(self.layer), self.layer))

    def __reduce__(self) -> Any:
        return type(self), (self.layer,)


class PackedForward(LayerForward):
    """Of a linear layer, with a packed copy of its weight for inference on CPU."""

    _packed: tuple[Watch, torch.dtype, Tensor] | None = None

    def __call__(self, input: Tensor) -> Tensor:
        layer = self.layer
        weight = layer._parameters.get("weight")
        if torch.is_grad_enabled() or layer.training:
            self._packed = None  # the weights are about to change
            return nn.Linear.forward(layer, input)
        if (
            torch.compiler.is_compiling()
            or weight is None  # pruned, or made anew at each call
            or type(weight) is not nn.Parameter  # quantised, sharded, or lent by `torch.func.functional_call`
            or type(input) is not Tensor
            or input.device.type != "cpu"
            or weight.device.type != "cpu"
            or weight.is_inference()
            or torch.jit.is_tracing()
            or torch.is_autocast_enabled("cpu")
            or nn.Linear.forward is not METHOD
            or F.linear is not FUNCTION
            or has_mode()
        ):
            return nn.Linear.forward(layer, input)
        dtype = compute_dtype(weight.dtype)
        kept = self.pack(weight, dtype) if dtype is not None and input.dtype == weight.dtype else None
        if kept is None or dtype is None:
            return nn.Linear.forward(layer, input)
        bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        if dtype == weight.dtype:
            return torch.ops.mkldnn._linear_pointwise(input, kept, bias, "none", [], "")
        return torch.ops.mkldnn._linear_pointwise(input.to(dtype), kept, bias, "none", [], "").to(weight.dtype)

    def drop(self) -> None:
        """Forget the packed copy until the next use."""
        self._packed = None

    def pack(self, weight: Tensor, dtype: torch.dtype) -> Tensor | None:
        """The packed weight, made anew if the weight has changed; None where it cannot be watched."""
        kept = self._packed
        if kept is None or kept[0].tensors[0] is not weight or kept[1] != dtype or not kept[0].unchanged():
            self._packed = kept = None  # ends the watch over the weight, which is written to again
            if not torch.backends.mkldnn.is_available() or not can_be_watched(weight):
                return None
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype), ROWS_HINT)
            guard = watch(weight)
            if guard is not None:
                kept = self._packed = (guard, dtype, packed)
        return None if kept is None else kept[2]


class Float32Forward(PackedForward):
    """Computes in float32, and gives float32, whatever the type of the weights."""

    exact = False

    def __call__(self, input: Tensor) -> Tensor:
        layer = self.layer
        if layer.weight.dtype == torch.float32:
            return super().__call__(input.float())
        return F.linear(input.float(), layer.weight.float(), None if layer.bias is None else layer.bias.float())


def compute_dtype(dtype: torch.dtype) -> torch.dtype | None:
    """The type a linear layer of `dtype` computes in on this CPU; None where packing does not apply."""
    if dtype == torch.float32:
        return torch.float32
    if dtype == torch.bfloat16:
        return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() and fast_bfloat16() else torch.float32
    return torch.float32 if dtype == torch.float16 else None


def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16, AMX or Arm's BF16)."""
    cpu = torch.cpu
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(getattr(cpu, name)() for name in probes if hasattr(cpu, name))


def may_be_packed(weights: Iterable[Tensor]) -> bool:
    """Whether a second copy of these weights in float32 is not too much."""
    return sum(weight.numel() for weight in weights) * 4 <= PACK_LIMIT_BYTES


def prepack(model: nn.Module) -> None:
    """Let the plain linear layers of `model` keep packed weights, if this build of torch can and the model is not
    huge.
    """
    if not torch.backends.mkldnn.is_available():
        return
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    if not may_be_packed(layer.weight for layer in layers):
        return
    for layer in layers:
        own_memory(layer.weight)
        if "forward" not in vars(layer):
            layer.forward = PackedForward(layer)  # type: ignore[method-assign]


def bind_to_replicas(model: nn.Module) -> None:
    """Let layers that `nn.DataParallel` has copied compute with their own weights, not with those of the original."""
    for module in model.modules():
        forward = vars(module).get("forward")
        if isinstance(forward, LayerForward) and isinstance(module, nn.Linear):
            module.forward = type(forward)(module)  # type: ignore[method-assign]
