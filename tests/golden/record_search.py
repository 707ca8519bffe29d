"""Record what version 6.2.0 of the existing library answers: similarity, search, clustering, quantisation.

Run by an interpreter that has that version; writes `search.json` and `search.npz` beside this file:

    .venv-6.2.0/bin/python tests/golden/record_search.py
"""

import json
from pathlib import Path

import numpy as np

from sentence_transformers import util

HERE = Path(__file__).resolve().parent
LIBRARIES = (
    *(("faiss", precision) for precision in ("float32", "uint8", "ubinary")),
    *(("usearch", precision) for precision in ("float32", "int8", "binary", "ubinary")),
)
SCORES = ("cos_sim", "dot_score", "euclidean_sim", "manhattan_sim")


def libraries(documents: np.ndarray, queries: np.ndarray) -> dict:
    """Searches by faiss and usearch for all documents, so that ties do not decide who is a candidate."""
    from sentence_transformers.quantization import quantize_embeddings, semantic_search_faiss, semantic_search_usearch

    ranges = np.stack([documents.min(0), documents.max(0)])
    searches = {"faiss": semantic_search_faiss, "usearch": semantic_search_usearch}
    answers = {}
    for library, precision in LIBRARIES:
        codes = quantize_embeddings(documents, precision, ranges=ranges)
        for rescore in (True, False):
            found = searches[library](
                queries,
                codes,
                corpus_precision=precision,
                top_k=40,
                ranges=ranges,
                rescore=rescore,
                rescore_multiplier=1,
            )
            answers[f"{library} {precision} {rescore}"] = found[0]
    return answers


def main() -> None:
    random = np.random.RandomState(0)
    queries = random.randn(5, 6).astype(np.float32)
    documents = random.randn(40, 6).astype(np.float32)
    centres = random.randn(6, 5)[random.randint(0, 6, 90)]
    crowd = (centres + 0.4 * random.randn(90, 5)).astype(np.float32)
    vectors = random.randn(120, 13)
    arrays = {"queries": queries, "documents": documents, "crowd": crowd, "vectors": vectors}
    answers: dict = {"semantic_search": {}, "paraphrase_mining": {}, "community_detection": {}}

    for name in SCORES:
        score = getattr(util, name)
        arrays[f"pairs/{name}"] = score(queries, documents).numpy()
        answers["semantic_search"][name] = util.semantic_search(queries, documents, top_k=4, score_function=score)
        answers["paraphrase_mining"][name] = {
            f"{top_k} {max_pairs}": util.paraphrase_mining_embeddings(
                documents, top_k=top_k, max_pairs=max_pairs, score_function=score
            )
            for top_k, max_pairs in ((1, 1000), (5, 30))
        }
    for name in ("pairwise_cos_sim", "pairwise_dot_score", "pairwise_euclidean_sim", "pairwise_manhattan_sim"):
        arrays[f"pairs/{name}"] = getattr(util, name)(queries, documents[:5]).numpy()
    arrays["pairs/pairwise_angle_sim"] = util.pairwise_angle_sim(queries, documents[:5]).numpy()
    for threshold in (-1.0, 0.3, 0.6, 0.8, 0.95):
        for size in (1, 2, 5):
            answers["community_detection"][f"{threshold} {size}"] = util.community_detection(
                crowd, threshold=threshold, min_community_size=size
            )
    for dtype in ("float16", "float32", "float64"):
        for precision in ("float32", "int8", "uint8", "binary", "ubinary"):
            found = util.quantize_embeddings(vectors.astype(dtype), precision)
            arrays[f"quantize/{dtype}/{precision}"] = found[:20]
            calibrated = util.quantize_embeddings(vectors[:8].astype(dtype), precision, calibration_embeddings=vectors)
            arrays[f"calibrated/{dtype}/{precision}"] = calibrated
    answers["libraries"] = libraries(documents, queries)
    answers["original_models"] = list(util.ORIGINAL_TRANSFORMER_MODELS)

    (HERE / "search.json").write_text(json.dumps(answers) + "\n")
    np.savez_compressed(HERE / "search.npz", **arrays)


if __name__ == "__main__":
    main()
