"""Record what version 6.2.0 makes of every call in `input_cases.py`: `inputs.json` beside this file.

Run it with an interpreter that has sentence-transformers 6.2.0:

    python tests/golden/record_inputs.py

Each case has `features`, those of `preprocess` as lists, and `values`, what `encode` or `predict` gives.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
from tests.golden.input_cases import CASES, CHECKPOINTS
from tests.golden.input_models import load, values_of


def main() -> None:
    recorded: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as root:
        for name, write in CHECKPOINTS.items():
            write(Path(root, name))
        for name, case in CASES.items():
            model = load(case, Path(root, case.checkpoint))
            model[0].processing_kwargs = case.saved
            settings = {"processing_kwargs": case.settings} if case.settings else {}
            features = model.preprocess(case.inputs, **case.others, **settings)
            kept = {key: value.tolist() for key, value in features.items() if hasattr(value, "tolist")}
            kept |= {key: features[key] for key in ("modality", "prompt_length", "logits_to_keep") if key in features}
            values = np.round(values_of(model, case.inputs, **case.others, **settings), 5)
            recorded[name] = {"features": kept, "values": values.tolist()}
    text = json.dumps(recorded, separators=(",", ":")).replace('},"', '},\n"')
    Path(__file__).with_name("inputs.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
