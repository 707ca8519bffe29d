"""Record `hard_negatives.json` with version 6.2.0: run this file by an interpreter that has it."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    from sentence_transformers.util import mine_hard_negatives

    sys.path.insert(0, str(HERE))
    import mining_cases

    warnings.simplefilter("ignore")
    found = {}
    for name in mining_cases.CASES:
        try:
            found[name] = mining_cases.run(mine_hard_negatives, name)
        except Exception as error:  # a case that 6.2.0 refuses is recorded as such
            print(name, type(error).__name__, error)
    (HERE / "hard_negatives.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
