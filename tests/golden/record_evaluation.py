"""Record `evaluation.json` with version 6.2.0: run this file by an interpreter that has it."""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    from sentence_transformers import evaluation

    sys.path.insert(0, str(HERE))
    import evaluation_cases

    warnings.simplefilter("ignore")
    found = {}
    for name in evaluation_cases.CASES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found[name] = evaluation_cases.run(evaluation, name, folder)
            except Exception as error:  # a case that 6.2.0 cannot run with a stand-in is left out
                print(name, type(error).__name__, error)
    for name in evaluation_cases.FUSION_CASES:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = evaluation_cases.run_fusion(name, folder)
    (HERE / "evaluation.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
