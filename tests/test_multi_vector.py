"""MultiVectorEncoder: values of version 6.2.0, models of other libraries, what depends on nothing, and bad input."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.multi_vector_encoder import losses
from sentence_transformers.multi_vector_encoder.evaluation import MultiVectorNanoBEIREvaluator
from sentence_transformers.multi_vector_encoder.modules import (
    HierarchicalTokenPooling,
    LambdaTokenPooling,
    MultiVectorMask,
)
from sentence_transformers.multi_vector_encoder.scoring import XTRScores

from sentence_transformers import MultiVectorEncoder, SentenceTransformer
from sentence_transformers.features import Features
from sentence_transformers.training.collator import MultiVectorEncoderDataCollator, Preprocess
from sentence_transformers.util import semantic_search
from tests import models
from tests.golden import multi_vector_cases as cases

pytestmark = pytest.mark.usefixtures("forked_workers")

HERE = Path(__file__).parent / "golden"
GOLDEN = np.load(HERE / "multi_vector.npz")
PLAIN = json.loads((HERE / "multi_vector.json").read_text(encoding="utf-8"))
TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("late")
    for name, make in cases.FOLDERS.items():
        make(root / name)
    return {name: root / name for name in cases.FOLDERS}


@pytest.fixture
def model(folders: dict[str, Path]) -> MultiVectorEncoder:
    return MultiVectorEncoder(str(folders["expanding"]), device="cpu")


def load(folder: Path | str, **kwargs: Any) -> MultiVectorEncoder:
    return MultiVectorEncoder(str(folder), device="cpu", **kwargs)


# ---- values of version 6.2.0


@pytest.mark.parametrize("name", cases.FOLDERS)
def test_folders_of_every_layout(folders, name):
    model, expected = load(folders[name]), PLAIN[f"model/{name}"]
    assert model.prompts == expected["prompts"]
    assert model[0].query_expansion == expected["query_expansion"]
    assert [model[0].query_length, model[0].document_length, model.max_seq_length] == expected["lengths"]
    assert [[type(module).__name__, module.get_config_dict()] for module in list(model)[1:]] == expected["modules"]
    for side in cases.SIDES:
        rows, lengths = cases.rows_of(model, side)
        np.testing.assert_array_equal(lengths, GOLDEN[f"lengths/{name}/{side}"])
        np.testing.assert_allclose(rows, GOLDEN[f"rows/{name}/{side}"], **TOLERANCE)


@pytest.mark.parametrize("name", cases.FOLDERS)
def test_a_round_trip_through_disk(folders, name, tmp_path):
    model = load(folders[name])
    model.save_pretrained(str(tmp_path))
    again = load(tmp_path)
    assert again.prompts == model.prompts and again[0].query_expansion == model[0].query_expansion
    for side in cases.SIDES:
        np.testing.assert_allclose(cases.rows_of(again, side)[0], cases.rows_of(model, side)[0], **TOLERANCE)
    saved = json.loads((tmp_path / "config_sentence_transformers.json").read_text(encoding="utf-8"))
    assert saved["model_type"] == "MultiVectorEncoder" and saved["similarity_fn_name"] is None


def test_similarity(model):
    queries, documents = model.encode_query(cases.COLUMNS[0]), model.encode_document(cases.COLUMNS[1])
    np.testing.assert_allclose(model.similarity(queries, documents), GOLDEN["similarity"], **TOLERANCE)
    np.testing.assert_allclose(
        model.similarity(queries, documents, chunk_elements=7), GOLDEN["similarity"], **TOLERANCE
    )
    pairs = model.similarity_pairwise(queries, documents)
    np.testing.assert_allclose(pairs, GOLDEN["similarity_pairwise"], **TOLERANCE)
    model.similarity_fn_name = "meanmaxsim"
    tokens = np.array([[len(query)] for query in queries])
    np.testing.assert_allclose(model.similarity(queries, documents), GOLDEN["similarity"] / tokens, **TOLERANCE)


@pytest.mark.parametrize("name", cases.LOSSES)
def test_losses(model, name):
    value, gradient = cases.run_loss(model, name)
    np.testing.assert_allclose(value, GOLDEN[f"loss/{name}/value"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient, GOLDEN[f"loss/{name}/gradient"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", cases.EVALUATORS)
def test_evaluators(model, name, tmp_path):
    found, expected = cases.run_evaluator(model, name, str(tmp_path)), PLAIN[f"evaluator/{name}"]
    assert found["metrics"] == pytest.approx(expected["metrics"], abs=1e-5)
    assert (found["primary"], found["file"]) == (expected["primary"], expected["file"])
    assert (tmp_path / found["file"]).is_file()


def test_hierarchical_pooling_under_autocast():
    """Groups are found in float32."""
    torch.manual_seed(0)
    features = {"token_embeddings": torch.randn(2, 9, 8), "attention_mask": torch.ones(2, 9, dtype=torch.long)}
    pooling = HierarchicalTokenPooling(pool_factor=2)
    expected = pooling(dict(features))["token_embeddings"]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(pooling(dict(features))["token_embeddings"], expected)


def test_hierarchical_pooling():
    for name, rows in cases.pooled_rows().items():
        np.testing.assert_allclose(rows, GOLDEN[f"pooling/{name}"], err_msg=name, **TOLERANCE)


def test_scoring_functions():
    for name, values in cases.scores().items():
        np.testing.assert_allclose(values, GOLDEN[f"scores/{name}"], err_msg=name, **TOLERANCE)


# ---- what it depends on


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert", "qwen3", "mistral", "mpnet", "mobilebert"])
@pytest.mark.parametrize("attend", [False, True])
def test_expanded_queries_alone_together_packed_and_padded(tmp_path, architecture, attend):
    """The added tokens look at the query's own; the others look at them only if told so."""
    models.build(architecture, tmp_path)
    torch.manual_seed(0)
    model = load(tmp_path)
    token = None if model[0]._cutter.mask_token_id is not None else model[0].id_to_tokens([7])[0]
    model[0].query_expansion = {"strategy": "min", "length": 24, "attend": attend, "token": token}
    texts = models.TEXTS
    together = model.encode_query(texts)
    for text, rows in zip(texts, together, strict=True):
        np.testing.assert_allclose(model.encode_query(text), rows, rtol=1e-4, atol=1e-4)
    module = model[0]
    for packed in {False, module.packs}:
        features = module.features(module.tokens(texts, task="query"), packed=packed)
        with torch.no_grad():
            out = model(features, task="query")
        found = (
            out["token_embeddings"].split(out["packing"].lengths)
            if packed
            else [rows[mask.bool()] for rows, mask in zip(out["token_embeddings"], out["attention_mask"], strict=True)]
        )
        if packed or module.pads_safely:
            for one, other in zip(found, together, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    short = texts.index("The river.")
    own = len(module.tokens(["The river."]).ids)
    assert len(together[short]) == 24
    model[0].query_expansion = None
    plain = model.encode_query("The river.")
    changed = (together[short][:own] - plain).abs().max() > 1e-3
    kind = models.ARCHITECTURES[architecture]
    assert bool(changed) == (attend and not kind.causal) or kind.padding_shows


def test_attention_leaves_the_same_tokens_out_where_batches_must_be_padded(folders):
    """A hook, or a module of the caller's, is given padded batches: the tokens that expand a query are in them, and
    its own tokens do not look at those.
    """
    model, given = load(folders["expanding"]).eval(), []
    collate = MultiVectorEncoderDataCollator(Preprocess(model))
    rows = [dict(zip(("query", "document"), row, strict=True)) for row in zip(*cases.COLUMNS[:2], strict=True)]
    loss = losses.MultiVectorMultipleNegativesRankingLoss(model)
    module, queries = model[0], cases.COLUMNS[0]
    with torch.no_grad():
        columns = Features.columns(collate(rows))
        expected = float(loss(list(columns)))
        handle = model.register_forward_pre_hook(lambda module, args: given.append(args[0]))
        assert float(loss(columns)) == pytest.approx(expected, rel=1e-5)
        assert given.pop(0)["attention_mask"].sum() < 10 * len(rows)
        handle.remove()
        model.append(Watching(given := []))
        model(module.features(module.tokens(queries, task="query"), packed=True), task="query")
    assert given[0]["attention_mask"].tolist() == [[1] * 10] * len(queries) and "kept_mask" not in given[0]
    for found, alone in zip(given[0]["token_embeddings"], model.encode_query(queries), strict=True):
        np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)


class Watching(torch.nn.Module):
    def __init__(self, given: list[Any]) -> None:
        super().__init__()
        self.given = given

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        self.given.append(features)
        return dict(features)


def test_workers_send_what_one_process_computes(model):
    pool = model.start_multi_process_pool(["cpu"] * 2)
    try:
        found = model.encode_document(cases.TEXTS, pool=pool, chunk_size=2, token_pooling=HierarchicalTokenPooling(2))
    finally:
        model.stop_multi_process_pool(pool)
    for rows, expected in zip(
        found, model.encode_document(cases.TEXTS, token_pooling=HierarchicalTokenPooling(2)), strict=True
    ):
        assert isinstance(rows, torch.Tensor)
        np.testing.assert_allclose(rows, expected, **TOLERANCE)


def test_a_fresh_process_needs_no_transformers(folders):
    code = f"""
import sys
from sentence_transformers import MultiVectorEncoder
model = MultiVectorEncoder({str(folders["expanding"])!r}, device="cpu")
model.similarity(model.encode_query(["a b"]), model.encode_document(["c, d"]))
print("transformers" in sys.modules)
"""
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_search_and_streams(model):
    documents = [
        rows for chunk in model.encode_stream(iter(cases.TEXTS), chunk_size=3, task="document") for rows in chunk
    ]
    queries = model.encode_query(["a, b! c", "yes no"])
    hits = semantic_search(queries, documents, top_k=2, score_function=model.similarity)
    scores = model.similarity(queries, model.encode_document(cases.TEXTS))
    assert [found[0]["corpus_id"] for found in hits] == scores.argmax(1).tolist()
    np.testing.assert_allclose([found[0]["score"] for found in hits], scores.amax(1), **TOLERANCE)


async def both(model: MultiVectorEncoder) -> list[Any]:
    import asyncio

    return await asyncio.gather(model.encode_async("a b c"), model.encode_async(["d e", "f"]))


def test_async(model):
    import asyncio

    one, two = asyncio.run(both(model))
    np.testing.assert_allclose(one, model.encode("a b c"), **TOLERANCE)
    assert [len(rows) for rows in two] == [len(rows) for rows in model.encode(["d e", "f"])]


def test_a_model_can_be_pickled(model):
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.encode_document("a, b"), model.encode_document("a, b"))


# ---- forms


def test_forms_of_the_result(folders):
    model = load(folders["saved"])
    assert model.encode([]) == []
    assert model.encode("a b").shape == (4, cases.H) and model.get_embedding_dimension() == cases.H
    assert isinstance(model.encode("a b", convert_to_numpy=True), np.ndarray)
    features = model.encode_document("a, b", output_value=None)
    assert features["token_embeddings"].shape == (5, cases.H) and features["attention_mask"].tolist() == [1] * 5
    pooled = model.encode(
        ["a b c", "d"], normalize_embeddings=True, token_pooling=LambdaTokenPooling(lambda rows: 3 * rows[:1])
    )
    assert [rows.norm(dim=-1).tolist() for rows in pooled] == [pytest.approx([3.0])] * 2
    assert len(model.encode_query("a b c", token_pooling=HierarchicalTokenPooling(2))) == 5  # of documents alone


def test_both_sides_have_their_length(folders):
    model = load(folders["saved"])
    model[0].query_length, model[0].document_length = 6, 9
    text = "a b c d e f g h i j k"
    assert [len(getattr(model, side)(text)) for side in cases.SIDES] == [13, 6, 9]
    model[0].query_expansion = {"strategy": "min", "length": 4}
    assert [len(model.encode_query(one)) for one in (text, "a", "")] == [6, 4, 4]


def test_a_dense_model_may_become_one(tmp_path, caplog):
    models.build("bert", tmp_path)
    SentenceTransformer(str(tmp_path), device="cpu").save_pretrained(str(tmp_path / "dense"))
    for folder in (tmp_path, tmp_path / "dense"):
        caplog.clear()
        model = load(folder)
        assert "random weights" in caplog.text
        assert model.encode("a cat").shape[1] == model.get_embedding_dimension() == 128


def test_gradients_reach_every_weight(model):
    loss = losses.MultiVectorMultipleNegativesRankingLoss(model)
    model.train()
    loss(cases.batch(model, 3)).backward()
    left = {name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None}
    assert all("pooler" in name for name in left)


def test_cached_is_not_cached_with_any_similarity(model):
    batch = cases.batch(model, 3)
    values = []
    for kind in ("", "Cached"):
        loss = getattr(losses, f"{kind}MultiVectorMultipleNegativesRankingLoss")(model, similarity_fct=XTRScores(3))
        model.zero_grad()
        loss(batch).backward()
        values.append(model[1].linear.weight.grad.clone())
    np.testing.assert_allclose(values[0], values[1], rtol=1e-3, atol=1e-5)


def test_a_similarity_of_ones_own_sees_what_is_padding(model):
    seen = []

    def similarity(queries: Any, documents: Any, queries_mask: Any, documents_mask: Any) -> Any:
        seen.append((queries_mask.sum(1).tolist(), documents_mask.sum(1).tolist()))
        return losses.MultiVectorMultipleNegativesRankingLoss(model).similarity_fct(queries, documents)

    losses.MultiVectorMultipleNegativesRankingLoss(model, similarity_fct=similarity)(cases.batch(model, 2))
    expected = [[len(rows) for rows in model.encode_query(cases.COLUMNS[0])]]
    expected.append([len(rows) for rows in model.encode_document(cases.COLUMNS[1])])
    assert seen == [tuple(expected)]


def test_nano_beir(model, tmp_path):
    pytest.importorskip("datasets")
    rows = {
        "corpus": [{"_id": key, "text": text} for key, text in cases.CORPUS.items()],
        "queries": [{"_id": key, "text": text} for key, text in cases.QUERIES.items()],
        "qrels": [{"query-id": key, "corpus-id": one} for key, found in cases.RELEVANT.items() for one in found],
    }
    for part, lines in rows.items():
        (tmp_path / part).mkdir()
        (tmp_path / part / "NanoMSMARCO.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    evaluator = MultiVectorNanoBEIREvaluator(["msmarco"], dataset_id=str(tmp_path), corpus_chunk_size=2)
    found = evaluator(model)
    expected = PLAIN["evaluator/retrieval"]["metrics"]["n_maxsim_ndcg@10"]
    assert found["NanoBEIR_mean_maxsim_ndcg@10"] == pytest.approx(expected, abs=1e-5)


# ---- bad input


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"convert_to_tensor": True}, "list of tensors"),
        ({"output_value": "sentence_embedding"}, "token_embeddings"),
        ({"token_pooling": "two"}, "BaseTokenPooling"),
        ({"precision": "int8"}, "precision"),
        ({"truncate_dim": 4}, "truncate_dim"),
        ({"batch_size": 0}, "batch_size"),
        ({"prompt_name": "none"}, "none"),
    ],
)
def test_arguments_that_cannot_be_meant(model, kwargs, says):
    with pytest.raises(ValueError, match=says):
        model.encode(["a"], **kwargs)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"strategy": "odd", "length": 4}, "strategy"),
        ({"length": 4}, "strategy"),
        ({"strategy": "fixed"}, "length"),
        ({"strategy": "fixed", "length": 0}, "length"),
        ({"strategy": "fixed", "length": 4, "colour": 1}, "colour"),
    ],
)
def test_expansions_that_cannot_be_meant(model, value, says):
    with pytest.raises(ValueError, match=says):
        model[0].query_expansion = value


def test_expansions_that_the_model_cannot_have(folders):
    model = load(folders["saved"])
    model[0].query_expansion = {"strategy": "fixed", "length": 100}
    with pytest.raises(ValueError, match="100 tokens, but max_seq_length is 64"):
        model.encode_query("a")
    model[0].query_expansion = {"strategy": "fixed", "length": 10, "token": "nonexistent"}
    with pytest.raises(ValueError, match="nonexistent"):
        model.encode_query("a")


def test_other_bad_input(model, folders, tmp_path, caplog):
    with pytest.raises(ValueError, match="Input 1"):
        model.encode(["a", 1])
    with pytest.raises(ValueError, match="maxsim, meanmaxsim"):
        model.similarity_fn_name = "cosine"
    for make, says in [
        (lambda: HierarchicalTokenPooling(0.5), "pool_factor"),
        (lambda: HierarchicalTokenPooling(num_protected_tokens=-1), "num_protected_tokens"),
        (lambda: HierarchicalTokenPooling(2).pool(torch.zeros(3, 4)), r"\(B, L, H\)"),
        (lambda: XTRScores(0), "top_k"),
        (lambda: losses.MultiVectorMultipleNegativesRankingLoss(model, mini_batch_size=0), "mini_batch_size"),
        (lambda: losses.MultiVectorMultipleNegativesRankingLoss(model, score_mini_batch_size=0), "score_mini_batch"),
        (lambda: losses.MultiVectorMultipleNegativesRankingLoss(model)(cases.batch(model, 1)), "at least 2"),
        (lambda: losses.MultiVectorDistillKLDivLoss(model)(cases.batch(model, 2), torch.ones(3, 1)), "at least 3"),
    ]:
        with pytest.raises(ValueError, match=says):
            make()
    with pytest.raises(NotImplementedError, match="cannot be saved"):
        LambdaTokenPooling(lambda rows: rows).save(str(tmp_path))
    MultiVectorEncoder(modules=[model[0], MultiVectorMask(["ab", ","])], device="cpu")
    assert "['ab']" in caplog.text


def test_models_that_cannot_become_one(tmp_path):
    import shutil

    shutil.copytree(cases.GOLDEN / "out_static", tmp_path / "static", copy_function=shutil.copyfile)
    with pytest.raises(ValueError, match="StaticEmbedding"):
        load(tmp_path / "static")
    cases.bare(tmp_path / "seeing")
    cases.update(tmp_path / "seeing" / "config.json", architectures=["ColPaliForRetrieval"])
    with pytest.raises(ValueError, match="model of images"):
        load(tmp_path / "seeing")
    cases.stanford_folder(tmp_path / "cut")
    weights = cases.load_file(str(tmp_path / "cut" / "model.safetensors"))
    weights.pop("linear.weight")
    cases.save_file(weights, str(tmp_path / "cut" / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"linear\.weight"):
        load(tmp_path / "cut")


def test_texts_that_are_cut_are_reported_once(model, caplog):
    model.encode_query(["a b c d e f g h i j k l m"])
    model.encode_query(["a b c d e f g h i j k l m n"])
    assert caplog.text.count("were cut") == 1 and "limit of their side = 10" in caplog.text
