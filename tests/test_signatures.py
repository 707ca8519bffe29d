"""Signatures say what can be given: no bare `*args, **kwargs`, no decorator that hides them."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import transformers
from sentence_transformers.sparse_encoder.evaluation import SparseTripletEvaluator
from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

from sentence_transformers import (
    CrossEncoder,
    MultiVectorEncoder,
    SentenceTransformer,
    SparseEncoder,
    SparseEncoderTrainer,
)
from sentence_transformers.encoders.base import BaseModel
from sentence_transformers.encoders.options import ModelOptions
from sentence_transformers.encoders.peft import PeftAdapterMixin
from sentence_transformers.losses import (
    CachedMultipleNegativesRankingLoss,
    MarginMSELoss,
    MSELoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.modules.normalize import Normalize
from tests import signatures

# from the reference of the interface: callable -> its arguments, in order
ARGUMENTS = {
    MultipleNegativesRankingLoss: (
        "model scale similarity_fct gather_across_devices directions partition_mode hardness_mode hardness_strength"
    ),
    CachedMultipleNegativesRankingLoss: (
        "model scale similarity_fct mini_batch_size mini_batch_num_tokens gather_across_devices directions "
        "partition_mode show_progress_bar hardness_mode hardness_strength"
    ),
    MSELoss: "model projection_dim",
    MarginMSELoss: "model similarity_fct",
    SparseEncoderTrainer: (
        "model args train_dataset eval_dataset loss evaluator data_collator processing_class model_init "
        "compute_metrics callbacks optimizers optimizer_cls_and_kwargs preprocess_logits_for_metrics"
    ),
    SentenceTransformer.merge: "models method base_model parameters dtype out_dtype device batch_options load_kwargs",
    SentenceTransformer.encode_multi_process: (
        "self sentences pool prompt_name prompt batch_size chunk_size show_progress_bar precision "
        "normalize_embeddings truncate_dim"
    ),
    SentenceTransformer.save_to_hub: (
        "self repo_id organization token private safe_serialization commit_message local_model_path exist_ok "
        "replace_model_card train_datasets"
    ),
    SparseTripletEvaluator.__call__: "self model output_path epoch steps",
    SparseAutoEncoder.save: "self output_path safe_serialization",
    Normalize.load: "model_name_or_path subfolder token cache_folder revision local_files_only",
}


@pytest.mark.parametrize("function", ARGUMENTS, ids=lambda function: function.__qualname__)
def test_arguments_are_shown(function):
    expected = ARGUMENTS[function].split()
    assert list(inspect.signature(function).parameters)[: len(expected)] == expected


@pytest.mark.parametrize("kind", [SentenceTransformer, SparseEncoder, CrossEncoder, MultiVectorEncoder])
def test_every_encoder_takes_and_passes_on_all_options(kind):
    options = ModelOptions.__annotations__.keys()
    assert ["model_name_or_path", *options] == list(inspect.signature(BaseModel).parameters)
    assert options <= inspect.signature(kind).parameters.keys()


def test_a_loss_of_ones_own_shows_its_own_arguments():
    class Mine(MultipleNegativesRankingLoss):
        def __init__(self, model, temperature=0.1):
            super().__init__(model, scale=1 / temperature)

    assert list(inspect.signature(Mine).parameters) == ["model", "temperature"]


@pytest.mark.parametrize("name", [name for name in vars(PeftAdapterMixin) if not name.startswith("_")])
def test_adapter_methods_have_a_signature(name):
    if callable(getattr(PeftAdapterMixin, name)):
        assert next(iter(inspect.signature(getattr(SentenceTransformer, name)).parameters)) == "self"


MOST_EXCEPTIONS = 400  # may only shrink


def test_every_argument_is_given_by_a_test():
    """Or stands among the exceptions, with the reason; these may only become fewer.

    `python -m tests.signatures` takes out of the file what a test gives by now.
    """
    table = signatures.exceptions()
    excepted = set().union(*(signatures.pairs(one) for one in table.values()))
    missing = signatures.pairs(signatures.untested())
    assert not sorted(missing - excepted), "no test gives these arguments"
    theirs = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}  # of old releases too
    stale = {pair for pair in excepted - missing if pair[1] not in theirs}
    assert not sorted(stale), "no exceptions any more: run python -m tests.signatures"
    assert len(excepted) <= MOST_EXCEPTIONS
