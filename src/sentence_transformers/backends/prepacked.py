"""Linear layers whose weights are laid out once for the CPU's matrix kernels.

A plain `F.linear` on CPU re-arranges its weight at every call. oneDNN can do it once: the product then starts at once,
which counts most for short inputs (one query reads all weights to multiply a few rows). `prepack` gives the `nn.Linear`
layers of a model that ability by changing their class; parameters, names, `state_dict` and `isinstance` stay as they
are.

The packed copy is made at the first call without gradients and made again whenever the weight changes, however it does
(`backends.write_detection`). With gradients, in training, on other devices, inside `torch.compile`, for unusual types,
and where changes of the weight could go unseen, the layer is an ordinary linear layer. Weights in bfloat16 or float16
on a CPU without such arithmetic are packed as float32, which gives results at least as precise and many times faster
than emulating it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.backends.write_detection import Watch, own_memory, watch

PACK_LIMIT_BYTES = 2 * 2**30  # the packed copy doubles a layer's memory; models beyond this stay as they are
ROWS_HINT = 1024  # number of rows the layout is chosen for


class Linear(nn.Linear):
    """`nn.Linear` that keeps a packed copy of its weight for inference on CPU."""

    _packed: tuple[Watch, torch.dtype, Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight
        if torch.is_grad_enabled() or self.training:
            self._packed = None  # the weights are about to change
            return F.linear(input, weight, self.bias)
        if (
            input.device.type != "cpu"
            or weight.device.type != "cpu"
            or weight.is_inference()
            or torch.compiler.is_compiling()
            or torch.jit.is_tracing()
            or torch.is_autocast_enabled("cpu")
        ):
            return F.linear(input, weight, self.bias)
        dtype = compute_dtype(weight.dtype)
        if input.dtype != weight.dtype or dtype is None:
            return F.linear(input, weight, self.bias)
        kept = self.pack(dtype)
        if kept is None:
            return F.linear(input, weight, self.bias)
        bias = None if self.bias is None else self.bias.detach().to(dtype)
        if dtype == weight.dtype:
            return torch.ops.mkldnn._linear_pointwise(input, kept, bias, "none", [], "")
        return torch.ops.mkldnn._linear_pointwise(input.to(dtype), kept, bias, "none", [], "").to(weight.dtype)

    def pack(self, dtype: torch.dtype) -> Tensor | None:
        """The packed weight, made anew if the weight has changed; None where it cannot be watched."""
        weight, kept = self.weight, self._packed
        if kept is None or not kept[0].unchanged(weight) or kept[1] != dtype:
            self._packed = kept = None  # ends the watch over the weight, which is written to again
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype), ROWS_HINT)
            guard = watch(weight)
            if guard is not None:
                kept = self._packed = (guard, dtype, packed)
        return None if kept is None else kept[2]

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.pop("_packed", None)
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> Linear:
        import copy

        clone = self.__class__.__new__(self.__class__)
        memo[id(self)] = clone
        clone.__dict__ = copy.deepcopy(self.__getstate__(), memo)
        return clone


class Float32Linear(Linear):
    """A linear layer that computes in float32, and gives float32, whatever the type of its weights."""

    def forward(self, input: Tensor) -> Tensor:
        if self.weight.dtype == torch.float32:
            return super().forward(input.float())
        return F.linear(input.float(), self.weight.float(), None if self.bias is None else self.bias.float())


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


def prepack(model: nn.Module) -> None:
    """Let the plain linear layers of `model` keep packed weights, if this build of torch can and the model is not
    huge.
    """
    if not torch.backends.mkldnn.is_available():
        return
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    if sum(layer.weight.numel() for layer in layers) * 4 > PACK_LIMIT_BYTES:
        return
    for layer in layers:
        own_memory(layer.weight)
        layer.__class__ = Linear
