"""Record `multi_vector.npz` and `.json` with version 6.2.0: `python tests/golden/record_multi_vector.py`, run by an
interpreter that has it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def main() -> None:
    from sentence_transformers import MultiVectorEncoder

    sys.path[:0] = [str(HERE), str(HERE.parents[1])]
    import multi_vector_cases as cases

    warnings.simplefilter("ignore")
    arrays: dict[str, np.ndarray] = {}
    plain: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as root:
        for name, make in cases.FOLDERS.items():
            folder = Path(root, name)
            make(folder)
            model = MultiVectorEncoder(str(folder), device="cpu")
            for side in cases.SIDES:
                arrays[f"rows/{name}/{side}"], arrays[f"lengths/{name}/{side}"] = cases.rows_of(model, side)
            plain[f"model/{name}"] = {
                "prompts": model.prompts,
                "query_expansion": model[0].query_expansion,
                "lengths": [model[0].query_length, model[0].document_length, model.max_seq_length],
                "modules": [[type(module).__name__, module.get_config_dict()] for module in list(model)[1:]],
            }
        model = MultiVectorEncoder(str(Path(root, "expanding")), device="cpu")
        queries, documents = model.encode_query(cases.COLUMNS[0]), model.encode_document(cases.COLUMNS[1])
        arrays["similarity"] = model.similarity(queries, documents).numpy()
        arrays["similarity_pairwise"] = model.similarity_pairwise(queries, documents).numpy()
        for name in cases.LOSSES:
            arrays[f"loss/{name}/value"], arrays[f"loss/{name}/gradient"] = cases.run_loss(model, name)
        for name in cases.EVALUATORS:
            plain[f"evaluator/{name}"] = cases.run_evaluator(model, name)
    arrays |= {f"pooling/{name}": value for name, value in cases.pooled_rows().items()}
    arrays |= {f"scores/{name}": value for name, value in cases.scores().items()}
    np.savez_compressed(HERE / "multi_vector.npz", **arrays)
    (HERE / "multi_vector.json").write_text(json.dumps(plain, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
