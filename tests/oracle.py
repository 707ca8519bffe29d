"""The existing library, version 6.2.0, in a virtual environment of its own: asked for values, never imported here.

Its interpreter is named by the environment variable ORACLE_PYTHON or lies at `.venv-6.2.0/bin/python` under the
repository's root. Tests that need it are marked `slow` and skipped where it is absent.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def oracle_python() -> str | None:
    """Path of the interpreter that has version 6.2.0; None if there is none."""
    path = Path(os.environ.get("ORACLE_PYTHON") or ROOT / ".venv-6.2.0" / "bin" / "python")
    return str(path) if path.is_file() else None


def run_oracle(code: str, *args: str | os.PathLike[str]) -> str:
    """What `code`, run by the oracle's interpreter with `args` as `sys.argv[1:]`, prints.

    Raises:
        RuntimeError: with what it wrote to stderr, if it fails.
    """
    python = oracle_python()
    if python is None:
        raise RuntimeError("No interpreter with version 6.2.0; set ORACLE_PYTHON.")
    done = subprocess.run([python, "-c", code, *map(str, args)], capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"Version 6.2.0 failed:\n{done.stderr}")
    return done.stdout
