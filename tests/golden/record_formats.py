"""Record what version 6.2.0 computes for every layout in `layouts.py`: `formats.npz` beside this file.

Run it with an interpreter that has sentence-transformers 6.2.0:

    python tests/golden/record_formats.py

For each layout there is one array (texts, dimension) per call, `layout/encode`, `layout/query`, `layout/document` and
`layout/prompt` (left out if equal to `layout/encode`), and `layout/facts`, a JSON object: the settings that the loaded
model reports, or the error's classes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from sentence_transformers import SentenceTransformer

sys.path.insert(0, str(Path(__file__).parent))
from layouts import LAYOUTS, PROMPT, TEXTS

CALLS = {
    "query": lambda model: model.encode_query(TEXTS),
    "document": lambda model: model.encode_document(TEXTS),
    "prompt": lambda model: model.encode(TEXTS, prompt=PROMPT),
}


def facts(model: SentenceTransformer) -> dict[str, Any]:
    length = model.max_seq_length
    return {
        "modules": [type(module).__name__ for module in model],
        "max_seq_length": length if isinstance(length, int) else None,
        "dimension": model.get_embedding_dimension(),
        "prompts": model.prompts,
        "default_prompt_name": model.default_prompt_name,
        "similarity_fn_name": model.similarity_fn_name,
        "truncate_dim": model.truncate_dim,
    }


def record(name: str) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        LAYOUTS[name](Path(folder))
        try:
            model = SentenceTransformer(folder, device="cpu")
        except Exception as error:
            return {f"{name}/facts": np.array(json.dumps({"error": [c.__name__ for c in type(error).__mro__]}))}
        arrays = {f"{name}/facts": np.array(json.dumps(facts(model)))}
        plain = model.encode(TEXTS)
        results = {call: function(model) for call, function in CALLS.items()}
        arrays[f"{name}/encode"] = plain
        return arrays | {f"{name}/{call}": rows for call, rows in results.items() if not np.array_equal(rows, plain)}


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    for name in LAYOUTS:
        arrays |= record(name)
        print(name, arrays[f"{name}/facts"])
    np.savez_compressed(Path(__file__).with_name("formats.npz"), **arrays)


if __name__ == "__main__":
    main()
