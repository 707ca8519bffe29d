"""A pretended accelerator: what code does on "cuda" or "mps", seen on a machine without one.

    with FakeGPU("mps") as seen:
        model.to("mps")
        model.encode(texts)
    assert seen.kernels.keys() <= mps_kernels()

Tensors stay on the CPU and keep their values and gradients; they only say that they are elsewhere. What a device would
refuse is refused: operands on two devices, float64 on "mps", `numpy()` of a tensor that is not on the CPU. What would
take its time is counted: kernels, copies between devices, and reads for which the host waits.

This acts on one thread, so batches that would run in threads of their own run in the caller's.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import importlib.resources
import re
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # torch imports it when a mode is first used, and it looks at functions that are patched here
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from sentence_transformers.backends import override_detection
from sentence_transformers.util import threads

CPU = torch.device("cpu")
READS = {
    getattr(Tensor, name)
    for name in (
        "item",
        "tolist",
        "__bool__",
        "__int__",
        "__float__",
        "__index__",
        "nonzero",
        "masked_select",
        "unique",
    )
} | {torch.nonzero, torch.masked_select, torch.unique, torch.equal, torch.bincount, Tensor.bincount}
SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]
TWO_DEVICES = {Tensor.copy_, SET_DATA, torch._has_compatible_shallow_copy_type}  # take operands of two devices
ATTENTION = torch.nn.functional.scaled_dot_product_attention


def device_of(tensor: Tensor) -> torch.device:
    """Where a tensor says that it is."""
    return tensor.__dict__.get("pretended", CPU)


class FakeGPU(TorchFunctionMode):
    """Tensors that are moved to a device of this kind say that they are there.

    Args:
        kind: "cuda", "mps" or another type of device.
        default: whether tensors are made there if no device is named, as `torch.set_default_device` does.

    Attributes:
        kernels: operations of ATen with an operand there, by name; views are not counted.
        copies: (from, to) of copies between devices, by their kinds.
        reads: functions that wait for the device.
    """

    def __init__(self, kind: str, default: bool = False) -> None:
        super().__init__()
        self.kind = kind
        self.constructors = _device_constructors() if default else set()
        self.kernels, self.copies, self.reads = (collections.Counter[Any]() for _ in range(3))
        self.dispatch = Kernels(self.kernels)
        self.entered = contextlib.ExitStack()

    def __enter__(self) -> FakeGPU:
        self.entered.enter_context(mock.patch.object(threads, "run_side_by_side", one_after_another))
        # what a device does is no mode of the caller's
        self.entered.enter_context(mock.patch.object(override_detection, "has_mode", lambda: False))
        module = torch.get_device_module(self.kind)
        self.entered.enter_context(mock.patch.object(module, "get_rng_state", lambda *device: torch.get_rng_state()))
        self.entered.enter_context(
            mock.patch.object(module, "set_rng_state", lambda state, *device: torch.set_rng_state(state))
        )
        self.entered.enter_context(mock.patch.object(module, "empty_cache", lambda: None))
        # builds of PyTorch with CUDA would start the driver to flatten the weights of an LSTM
        self.entered.enter_context(mock.patch.object(torch.backends.cudnn, "is_acceptable", lambda tensor: False))
        self.entered.enter_context(mock.patch.object(Tensor, "_make_subclass", staticmethod(make_subclass)))
        self.entered.enter_context(self.dispatch)
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self.entered.close()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return device_of(args[0])
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return device_of(args[0]).type == "cuda"
        if func is Tensor.__iter__:
            return iter(self.__torch_function__(torch.unbind, types, args))
        if func is Tensor.get_device:
            return -1 if device_of(args[0]) == CPU else device_of(args[0]).index or 0
        asked, args, kwargs = self.asked_device(func, args, kwargs)
        operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        device = asked or self.common_device(func, operands)
        if func in (Tensor.numpy, Tensor.__array__) and device != CPU:
            raise TypeError(f"can't convert {device} device type tensor to numpy. Use Tensor.cpu() to copy it first.")
        self.count(func, operands, asked, device)
        with self.dispatch.on(device, func is ATTENTION):
            result = func(*args, **kwargs)
        if func == SET_DATA:
            place(args[0], device_of(args[1]))
        return tree_map_only(Tensor, lambda tensor: self.result(tensor, operands, device), result)

    def asked_device(self, func: Any, args: Any, kwargs: Any) -> tuple[torch.device | None, Any, Any]:
        """The device that a call names, and its arguments with the CPU in its place."""
        asked: torch.device | None = None
        if func is torch._C._nn._parse_to:
            return asked, args, kwargs
        if kwargs.get("device") is not None:
            asked, kwargs["device"] = torch.device(kwargs["device"]), "cpu"
        elif func in self.constructors:
            asked = torch.device(self.kind)
        elif func is Tensor.cpu:
            asked = CPU
        elif func is Tensor.to and len(args) > 1:
            if isinstance(args[1], (str, torch.device)):
                asked, args = torch.device(args[1]), (args[0], "cpu", *args[2:])
            elif isinstance(args[1], Tensor):
                asked = device_of(args[1])
        generator = kwargs.get("generator")
        if asked is not None and generator is not None and generator.device.type != asked.type:
            raise RuntimeError(
                f"Expected a '{asked.type}' device type for generator but found '{generator.device.type}'"
            )
        if asked is not None and asked.type == self.kind and asked.index is None:
            asked = torch.device(self.kind, 0)
        return asked, args, kwargs

    @staticmethod
    def common_device(func: Any, operands: list[Tensor]) -> torch.device:
        """Where a call computes."""
        if not operands or func in TWO_DEVICES:
            return device_of(operands[0]) if operands else CPU
        if func in (Tensor.__getitem__, Tensor.__setitem__):  # an index may lie on the CPU
            rest = [operand for operand in operands[1:] if device_of(operand) != CPU]
            operands = [operands[0], *rest]
        devices = {device_of(operand) for operand in operands if operand.dim() or device_of(operand) != CPU}
        if len(devices) > 1:
            names = " and ".join(sorted(map(str, devices)))
            raise RuntimeError(f"{func.__name__}: Expected all tensors to be on the same device, but found {names}")
        return devices.pop() if devices else CPU

    def count(self, func: Any, operands: list[Tensor], asked: torch.device | None, device: torch.device) -> None:
        source = next((device_of(operand) for operand in operands), CPU)
        target = device
        if func is Tensor.copy_:
            source, target = device_of(operands[-1]), device_of(operands[0])
        if (asked is not None or func is Tensor.copy_) and source != target:
            self.copies[source.type, target.type] += 1
        boolean = func is Tensor.__getitem__ and any(part.dtype == torch.bool for part in operands[1:])
        if device != CPU and (func in READS or boolean):
            self.reads[func.__name__] += 1

    def result(self, tensor: Tensor, operands: list[Tensor], device: torch.device) -> Tensor:
        if device.type == "mps" and tensor.dtype in (torch.float64, torch.complex128):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        if device_of(tensor) == device:
            return tensor
        if any(tensor is operand for operand in operands):  # a copy to where the tensor is gives the tensor itself
            tensor = tensor.clone()
        return place(tensor, device)


def place(tensor: Tensor, device: torch.device) -> Tensor:
    """Let a tensor say that it is on `device`."""
    tensor.__dict__["pretended"] = device
    return tensor


class Kernels(TorchDispatchMode):
    """Counts the operations of ATen while a call computes on the device."""

    def __init__(self, seen: collections.Counter[Any]) -> None:
        super().__init__()
        self.seen, self.counting, self.opaque = seen, False, False

    @contextlib.contextmanager
    def on(self, device: torch.device, opaque: bool) -> Any:
        """Count if `device` is not the CPU; what is `opaque` is one kernel by its own name."""
        before = self.counting, self.opaque
        self.counting, self.opaque = device != CPU, opaque
        if self.counting and opaque:
            self.seen["scaled_dot_product_attention"] += 1
        try:
            yield
        finally:
            self.counting, self.opaque = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.counting and not self.opaque and not func.is_view:
            self.seen[func.name().removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


def make_subclass(kind: type, data: Tensor, *rest: Any, made: Any = Tensor._make_subclass) -> Tensor:
    """A parameter where its data is."""
    return place(made(kind, data, *rest), device_of(data))


def one_after_another(function: Any, items: Any, *rest: Any) -> None:
    """In the place of `lanes.run_side_by_side`."""
    for item in items:
        function(item)


@functools.cache
def mps_kernels() -> frozenset[str]:
    """Names of the operations that have a kernel for MPS, dense or sparse, or are composed of others."""
    text = (
        importlib.resources.files("torchgen").joinpath("packaged/ATen/native/native_functions.yaml").read_text("utf-8")
    )
    own, delegates = {"scaled_dot_product_attention", "mkldnn_rnn_layer"}, {}  # names of the CPU for what MPS has too
    for entry in re.split(r"^- func: ", text, flags=re.MULTILINE)[1:]:
        name = entry[: entry.index("(")]
        if delegate := re.search(r"structured_delegate: (\S+)", entry):
            delegates[name] = delegate[1]
            continue
        keys = {one for line in re.findall(r"^    ([\w, ]+):", entry, re.MULTILINE) for one in line.split(", ")}
        if not keys or keys & {"MPS", "SparseMPS"} or any(one.startswith("Composite") for one in keys):
            own.add(name)
    return frozenset(own | {name for name, target in delegates.items() if target in own})
