"""What this process runs on: devices, processes, installed packages and their versions."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from sentence_transformers.errors import VersionRequirementError

logger = logging.getLogger(__name__)

ACCELERATORS = ("cuda", "mps", "npu", "xpu", "hpu")
"""Devices by preference; the CPU comes last."""


def is_dist_initialized() -> bool:
    """Whether `torch.distributed` is there and a process group has been set up."""
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def get_device_name() -> str:
    """The best device of this machine: "cuda", "mps", "npu", "xpu", "hpu" or "cpu".

    Under torch.distributed each process gets its own, such as "cuda:1" for local rank 1.
    """
    device = next((name for name in ACCELERATORS if _device_works(name)), "cpu")
    if device in ("cpu", "mps") or not is_dist_initialized():
        return device
    return f"{device}:{_local_rank(device)}"


def _device_works(name: str) -> bool:
    import torch

    backend = torch.backends.mps if name == "mps" else getattr(torch, name, None)
    return backend is not None and bool(backend.is_available())


def _local_rank(device: str) -> int:
    """Number of this process on this machine: what the launcher says, else rank modulo devices."""
    import torch

    if "LOCAL_RANK" in os.environ:
        return int(os.environ["LOCAL_RANK"])
    return torch.distributed.get_rank() % max(1, getattr(torch, device).device_count())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out: CUDA's own, and those of MPS and cuBLAS, which have no class."""
    import torch

    said = ("MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "out of memory")
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)


def check_package_availability(package_name: str, owner: str) -> bool:
    """Whether the package from github.com/`owner` is installed, and not just a folder that happens to be called so."""
    if find_spec(package_name) is None:
        return False
    try:
        about = metadata.metadata(package_name)
    except metadata.PackageNotFoundError:
        return False
    addresses = [about["Home-page"] or "", *(about.get_all("Project-URL") or [])]
    return any(f"github.com/{owner}/{package_name}" in address for address in addresses)


def is_accelerate_available() -> bool:
    """Whether Hugging Face accelerate is installed."""
    return check_package_availability("accelerate", "huggingface")


def is_datasets_available() -> bool:
    """Whether Hugging Face datasets is installed."""
    return check_package_availability("datasets", "huggingface")


def is_training_available() -> bool:
    """Whether the packages that training needs are installed: accelerate and datasets."""
    return is_accelerate_available() and is_datasets_available()


def get_installed_version(package_name: str) -> str | None:
    """Version of an installed distribution ("python" for the interpreter), or None."""
    if package_name == "python":
        return platform.python_version()
    try:
        return metadata.version(package_name)
    except metadata.PackageNotFoundError:
        return None


def check_version_requirements(requirements: dict[str, Any] | None, source: str | None = None) -> None:
    """Compare what a model asks for with what is installed.

    Args:
        requirements: package -> version specifier, e.g. {"transformers": ">=5.1", "python": ">=3.11"}, or
            {"specifier": ..., "reason": ...}; "pytorch" means torch. What cannot be understood is logged and passed
            over: a model must not become unusable through its metadata.
        source: name of the model, for messages.

    Raises:
        VersionRequirementError: (an ImportError) lists every unmet requirement and the command that repairs it.
    """
    if not requirements:
        return
    if not isinstance(requirements, dict):
        logger.warning("The `requirements` of %s are ignored: a dictionary is expected, got %r.", source, requirements)
        return
    unmet = {}
    for key, wanted in requirements.items():
        name = "torch" if key == "pytorch" else key
        specifier, reason = (
            (wanted.get("specifier"), wanted.get("reason")) if isinstance(wanted, dict) else (wanted, None)
        )
        if complaint := _complaint(name, specifier, source):
            unmet[f"{name}{specifier}"] = f"{complaint} {reason or ''}".strip()
    if not unmet:
        return
    lines = [f"The model {source!r} requires:" if source else "This model requires:"]
    lines += [f"- {complaint}" for complaint in unmet.values()]
    packages = " ".join(f'"{wanted}"' for wanted in unmet if not wanted.startswith("python"))
    if packages:
        lines += ["Install compatible versions with:", f"    pip install -U {packages}"]
    raise VersionRequirementError("\n".join(lines))


def _complaint(name: str, wanted: object, source: str | None) -> str | None:
    """What is wrong with one requirement, or None."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    if not isinstance(wanted, str):
        logger.warning("The requirement %s %r of %s is not a version specifier.", name, wanted, source)
        return None
    try:
        specifier = SpecifierSet(wanted)
    except InvalidSpecifier as error:
        logger.warning("The requirement %s %r of %s cannot be read: %s", name, wanted, source, error)
        return None
    installed = get_installed_version(name)
    if installed is None:
        return f"{name}{wanted}, but it is not installed."
    if specifier.contains(installed, prereleases=True):
        return None
    return f"{name}{wanted}, but {name}=={installed} is installed."


@contextlib.contextmanager
def suggest_extra_on_exception() -> Iterator[None]:
    """If the block fails, add a note with the packages of training that are missing; the exception stays the same."""
    try:
        yield
    except Exception as error:
        checks = {"accelerate": is_accelerate_available, "datasets": is_datasets_available}
        missing = [name for name, available in checks.items() if not available()]
        if missing:
            error.add_note(f"Training needs {' and '.join(missing)}: pip install {' '.join(missing)}")
        raise
