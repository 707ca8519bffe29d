"""Record `losses.npz` with version 6.2.0: `python tests/golden/record_losses.py`, run by an interpreter that has it."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent


def main() -> None:
    from sentence_transformers.cross_encoder import losses as cross_losses

    from sentence_transformers import losses

    sys.path[:0] = [str(HERE), str(HERE.parents[1])]
    import loss_cases

    warnings.simplefilter("ignore")
    found = {}
    for name in loss_cases.CASES:
        try:
            found[f"{name}.value"], found[f"{name}.gradient"] = loss_cases.run(losses, name)
        except Exception as error:  # a case that 6.2.0 cannot run with a stand-in is left out
            print(name, type(error).__name__, error)
    for name in loss_cases.TEXT_CASES:
        found[f"{name}.value"], found[f"{name}.gradient"] = loss_cases.run_texts(losses, name)
    for name in loss_cases.CROSS_CASES:
        try:
            found[f"{name}.value"], found[f"{name}.gradient"] = loss_cases.run_cross(cross_losses, name)
        except Exception as error:
            print(name, type(error).__name__, error)
    np.savez_compressed(HERE / "losses.npz", **found)
    record_sparse(loss_cases)


def record_sparse(loss_cases: Any) -> None:
    """The losses of sparse encoders, in a file of their own."""
    from sentence_transformers.sparse_encoder import losses
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

    found = {}
    for name in loss_cases.SPARSE_CASES:
        found[f"{name}.value"], found[f"{name}.gradient"] = loss_cases.run_sparse(losses, name)
    for name in loss_cases.CSR_CASES:
        found[f"{name}.value"], found[f"{name}.gradient"] = loss_cases.run_csr(losses, SparseAutoEncoder, name)
    np.savez_compressed(HERE / "sparse_losses.npz", **found)


if __name__ == "__main__":
    main()
