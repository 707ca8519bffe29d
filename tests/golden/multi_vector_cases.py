"""Late interaction: what is recorded from version 6.2.0 and compared here. Runs under both libraries.

FOLDERS       layouts of saved models, made of the golden folders; ColBERT's of other libraries too
rows_of       token vectors of each side
LOSSES        value, and gradient of the projection, of each loss
EVALUATORS    metrics
pooled_rows   hierarchical pooling of seeded rows
scores        the scoring functions, of padded token vectors with masks
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).resolve().parent.parent / "golden_formats"
H = 8
TEXTS = ["a b c", "a, b! c", "", "yes no (x) y. z", "d e f g h i j k l m n o p q r s t u", "a b c", "ab, cd: ef!"]
COLUMNS = [["a b c", "d e", "f g h i"], ["a, b", "d", "g h i j k"], ["x y", "z", "u v w"]]
KNOWN = {"in_features": 16, "out_features": H, "bias": False, "activation_function": "torch.nn.modules.linear.Identity"}
TOKENS = "token_embeddings"

FOLDERS: dict[str, Callable[[Path], None]] = {}


# ---- folders


def folder(function: Callable[[Path], None]) -> Callable[[Path], None]:
    FOLDERS[function.__name__] = function
    return function


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def update(path: Path, **changes: Any) -> None:
    write(path, json.loads(path.read_text(encoding="utf-8")) | changes)


def base(path: Path, **settings: Any) -> None:
    """The golden folder with a projection to `H` dimensions and wider weights, so that attention matters."""
    shutil.copytree(GOLDEN / "out_mv", path, dirs_exist_ok=True, copy_function=shutil.copyfile)
    for one in (path, *path.rglob("*")):
        one.chmod(0o755 if one.is_dir() else 0o644)
    weights = load_file(str(path / "model.safetensors"))
    wide = {name: value * 8 if "attention.self" in name else value for name, value in weights.items()}
    save_file(wide, str(path / "model.safetensors"), metadata={"format": "pt"})
    projection = load_file(str(path / "1_Dense" / "model.safetensors"))["linear.weight"][:H].clone()
    save_file({"linear.weight": projection}, str(path / "1_Dense" / "model.safetensors"))
    update(path / "1_Dense" / "config.json", out_features=H)
    update(path / "sentence_bert_config.json", **settings)


@folder
def saved(path: Path) -> None:
    base(path)


@folder
def expanding(path: Path) -> None:
    base(path, query_expansion={"strategy": "fixed", "length": 10}, document_length=9)
    update(path / "2_MultiVectorMask" / "config.json", skiplist_words=[",", "!", "zz"])


@folder
def expanding_attended(path: Path) -> None:
    base(path, query_expansion={"strategy": "fixed", "length": 10, "attend": True})
    update(path / "2_MultiVectorMask" / "config.json", skiplist_words=[","], skiplist_tasks=["query", "document"])


@folder
def at_least(path: Path) -> None:
    base(path, query_expansion={"strategy": "min", "length": 10, "token": "[PAD]"}, query_length=15)
    update(path / "2_MultiVectorMask" / "config.json", keep_only_token_ids=[7, 8, 9])


@folder
def silent_dense(path: Path) -> None:
    base(path)
    write(path / "1_Dense" / "config.json", KNOWN)


@folder
def pooling_at_the_end(path: Path) -> None:
    base(path)
    kind = "sentence_transformers.multi_vector_encoder.modules.token_pooling.HierarchicalTokenPooling"
    entries = json.loads((path / "modules.json").read_text(encoding="utf-8"))
    entry = {"idx": 4, "name": "4", "path": "4_HierarchicalTokenPooling", "type": kind}
    write(path / "modules.json", [*entries, entry])
    write(path / "4_HierarchicalTokenPooling" / "config.json", {"pool_factor": 2, "num_protected_tokens": 1})


def bare(path: Path) -> None:
    """A plain checkpoint."""
    base(path)
    for name in ("1_Dense", "2_MultiVectorMask", "3_Normalize"):
        shutil.rmtree(path / name)
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (path / name).unlink()


def stanford_folder(path: Path, **metadata: Any) -> None:
    projection = load_file(str(GOLDEN / "out_mv" / "1_Dense" / "model.safetensors"))["linear.weight"][:H].clone()
    bare(path)
    weights = {f"bert.{name}": value for name, value in load_file(str(path / "model.safetensors")).items()}
    save_file(weights | {"linear.weight": projection}, str(path / "model.safetensors"), metadata={"format": "pt"})
    update(path / "config.json", architectures=["HF_ColBERT"])
    if metadata:
        write(path / "artifact.metadata", metadata)


@folder
def stanford(path: Path) -> None:
    settings = {"query_maxlen": 12, "doc_maxlen": 11, "attend_to_mask_tokens": False, "mask_punctuation": True}
    stanford_folder(path, query_token_id="yes", doc_token_id="no", **settings)


@folder
def stanford_attended(path: Path) -> None:
    stanford_folder(path, query_maxlen=12, attend_to_mask_tokens=True, mask_punctuation=False)


@folder
def stanford_silent(path: Path) -> None:
    stanford_folder(path)


def pylate_folder(path: Path, dense: str = "pylate.models.Dense.Dense", **config: Any) -> None:
    base(path)
    for name in ("2_MultiVectorMask", "3_Normalize"):
        shutil.rmtree(path / name)
    transformer = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    write(path / "modules.json", [transformer, {"idx": 1, "name": "1", "path": "1_Dense", "type": dense}])
    write(path / "sentence_bert_config.json", {"max_seq_length": 63, "do_lower_case": False})
    write(path / "1_Dense" / "config.json", KNOWN)
    versions = {"__version__": {"sentence_transformers": "3.4.1"}, "similarity_fn_name": "MaxSim"}
    write(path / "config_sentence_transformers.json", versions | config)


@folder
def pylate(path: Path) -> None:
    lengths = {"query_length": 12, "document_length": 10, "attend_to_expansion_tokens": False}
    pylate_folder(path, query_prefix="yes", document_prefix="no", skiplist_words=[",", "!"], **lengths)


@folder
def pylate_with_type(path: Path) -> None:
    prefixes = {"query_prefix": "[Q] ", "document_prefix": "[D] ", "prompts": {"query": "a ", "document": "b "}}
    pylate_folder(path, model_type="ColBERT", query_length=12, do_query_expansion=False, **prefixes)


@folder
def pylate_older_name(path: Path) -> None:
    pylate_folder(path, model_type="ColBERT", attend_to_mask_tokens=True, dense="sentence_transformers.models.Dense")


@folder
def from_dense(path: Path) -> None:
    """A SentenceTransformer with a projection of texts, which becomes one of tokens."""
    base(path)
    for name in ("2_MultiVectorMask", "3_Normalize"):
        shutil.rmtree(path / name)
    shutil.move(path / "1_Dense", path / "2_Dense")
    write(path / "2_Dense" / "config.json", KNOWN)
    write(path / "1_Pooling" / "config.json", {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True})
    kinds = ["Transformer", "Pooling", "Dense"]
    entries = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    write(path / "modules.json", entries)
    write(path / "config_sentence_transformers.json", {"prompts": {"query": "yes "}, "similarity_fn_name": "dot"})


def rows_of(model: Any, side: str, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Token vectors of all texts of a side, one text after the other (T, H), and how many each has."""
    found = getattr(model, side)(TEXTS, convert_to_numpy=True, **kwargs)
    return np.concatenate(found), np.array([len(rows) for rows in found])


SIDES = ("encode", "encode_query", "encode_document")


# ---- losses and evaluators, of the model in `expanding`

# name: (class, arguments, text columns, labels)
LOSSES: dict[str, tuple[str, dict[str, Any], int, Any]] = {
    "mnrl": ("MultiVectorMultipleNegativesRankingLoss", {}, 2, None),
    "mnrl-negatives": ("MultiVectorMultipleNegativesRankingLoss", {"scale": 5.0}, 3, None),
    "mnrl-blocks": ("MultiVectorMultipleNegativesRankingLoss", {"score_mini_batch_size": 1}, 3, None),
    "mnrl-small": ("MultiVectorMultipleNegativesRankingLoss", {"mini_batch_size": 2}, 3, None),
    "cached": ("CachedMultiVectorMultipleNegativesRankingLoss", {"mini_batch_size": 2}, 3, None),
    "cached-tokens": ("CachedMultiVectorMultipleNegativesRankingLoss", {"mini_batch_num_tokens": 24}, 3, None),
    "distill": ("MultiVectorDistillKLDivLoss", {}, 3, [[3.0, 1], [2, 2], [1, 4]]),
    "distill-temperature": ("MultiVectorDistillKLDivLoss", {"temperature": 2.0}, 3, [[3.0, 1], [2, 2], [1, 4]]),
    "distill-student": ("MultiVectorDistillKLDivLoss", {"student_temperature": 2.0}, 3, [[3.0, 1], [2, 2], [1, 4]]),
    "mnrl-xtr": ("MultiVectorMultipleNegativesRankingLoss", {"similarity_fct": "XTRScores"}, 3, None),
    "distill-xtr": ("MultiVectorDistillKLDivLoss", {"similarity_fct": "XTRKDScores"}, 3, [[3.0, 1], [2, 2], [1, 4]]),
    "margin": ("MultiVectorMarginMSELoss", {}, 3, [1.0, 2, 3]),
    "margin-scores": ("MultiVectorMarginMSELoss", {}, 3, [[1.0, 2], [2, 2], [3, 1]]),
}


def batch(model: Any, columns: int) -> list[dict[str, Any]]:
    """Padded features of the columns, queries first."""
    sides = ["query", *["document"] * (columns - 1)]
    return [
        model.preprocess(texts, task=side) | {"task": side}
        for texts, side in zip(COLUMNS[:columns], sides, strict=True)
    ]


def run_loss(model: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Value, and gradient of the projection (H, 16)."""
    from sentence_transformers.multi_vector_encoder import losses, scoring

    kind, kwargs, columns, labels = LOSSES[name]
    if "similarity_fct" in kwargs:
        kwargs = kwargs | {"similarity_fct": getattr(scoring, kwargs["similarity_fct"])(5)}
    loss = getattr(losses, kind)(model, **kwargs)
    model.zero_grad()
    value = loss(batch(model, columns), None if labels is None else torch.tensor(labels))
    value.backward()
    return value.detach().numpy(), model[1].linear.weight.grad.numpy().copy()


QUERIES = {str(i): text for i, text in enumerate(COLUMNS[0])}
CORPUS = {str(i): text for i, text in enumerate(COLUMNS[1] + COLUMNS[2])}
RELEVANT = {"0": {"0"}, "1": {"1", "4"}, "2": {"2"}}
CANDIDATES = [list(pair) for pair in zip(COLUMNS[1], COLUMNS[2], strict=True)]
SAMPLES = [
    {"query": query, "positive": [first], "negative": [second, "q r, s"]}
    for query, first, second in zip(*COLUMNS, strict=True)
]
TEACHER = [[3.0, 1], [2, 1], [1, 4]]

# name: (class, arguments, keyword arguments)
EVALUATORS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "retrieval": ("MultiVectorInformationRetrievalEvaluator", (QUERIES, CORPUS, RELEVANT), {"name": "n"}),
    "retrieval-chunks": (
        "MultiVectorInformationRetrievalEvaluator",
        (QUERIES, CORPUS, RELEVANT),
        {"corpus_chunk_size": 2, "chunk_elements": 10},
    ),
    "triplets": ("MultiVectorTripletEvaluator", tuple(COLUMNS), {"name": "t"}),
    "triplets-margin": ("MultiVectorTripletEvaluator", tuple(COLUMNS), {"margin": 1.0}),
    "reranking": ("MultiVectorRerankingEvaluator", (SAMPLES,), {"name": "r", "at_k": 2}),
    "reranking-single": ("MultiVectorRerankingEvaluator", (SAMPLES,), {"use_batched_encoding": False}),
    "distillation": ("MultiVectorDistillationEvaluator", (COLUMNS[0], CANDIDATES, TEACHER), {"name": "d"}),
    "distillation-pairs": ("MultiVectorDistillationEvaluator", (COLUMNS[0], COLUMNS[1], [3.0, 1, 2]), {}),
    "distillation-temperature": (
        "MultiVectorDistillationEvaluator",
        (COLUMNS[0], CANDIDATES, TEACHER),
        {"temperature": 2.0},
    ),
}


def run_evaluator(model: Any, name: str, path: str | None = None) -> dict[str, Any]:
    """The metrics, the primary metric, and what was written."""
    from sentence_transformers.multi_vector_encoder import evaluation

    kind, args, kwargs = EVALUATORS[name]
    evaluator = getattr(evaluation, kind)(*args, **kwargs)
    found = dict(evaluator(model, path))
    return {"metrics": found, "primary": evaluator.primary_metric, "file": evaluator.csv_file}


# ---- functions


def pooled_rows() -> dict[str, np.ndarray]:
    """Hierarchical pooling of n unit rows by several factors."""
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    rows = torch.nn.functional.normalize(torch.randn(9, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    found = {}
    for count in (1, 2, 5, 9):
        for factor in (1, 1.5, 2, 4, 20):
            for kept in (0, 1, 2):
                pooling = HierarchicalTokenPooling(factor, num_protected_tokens=kept)
                found[f"{count}-{factor}-{kept}"] = pooling.pool([rows[:count]])[0].numpy()
    plain = HierarchicalTokenPooling(2, normalize_embeddings=False)
    found["plain"] = plain.pool([rows])[0].numpy()
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
    found["padded"] = HierarchicalTokenPooling(2).pool(torch.stack([rows, rows.flip(0)]), attention_mask=mask).numpy()
    return found


def scores() -> dict[str, np.ndarray]:
    """Each scoring function on two queries and their candidates."""
    from sentence_transformers.multi_vector_encoder import scoring

    generator = torch.Generator().manual_seed(1)
    queries, documents = torch.randn(2, 3, 4, generator=generator), torch.randn(4, 5, 4, generator=generator)
    mask_q = torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    mask_d = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]).bool()
    pairs = (queries, documents[:2], mask_q, mask_d[:2])
    own = documents.unflatten(0, (2, 2)), mask_q, mask_d.unflatten(0, (2, 2))
    found = {
        "colbert_scores": scoring.colbert_scores(queries, own[0], own[1], own[2]),
        "colbert_scores_pairwise": scoring.colbert_scores_pairwise(*pairs),
        "colbert_kd_scores": scoring.colbert_kd_scores(queries, *own),
        "mean_colbert_scores_pairwise": scoring.mean_colbert_scores_pairwise(*pairs),
        "mean_colbert_kd_scores": scoring.mean_colbert_kd_scores(queries, *own),
    }
    for top_k in (1, 2, 4, 256):
        found[f"xtr_scores-{top_k}"] = scoring.xtr_scores(queries, *own, top_k=top_k)
        found[f"xtr_scores_pairwise-{top_k}"] = scoring.xtr_scores_pairwise(*pairs, top_k=top_k)
        found[f"xtr_kd_scores-{top_k}"] = scoring.xtr_kd_scores(queries, *own, top_k=top_k)
    return {name: value.numpy() for name, value in found.items()}
