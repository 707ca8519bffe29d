"""One training step of each case, in one process or in two: `torchrun --nproc-per-node N two_processes.py FOLDER`.

The folder holds the models by their kind, the first word of a case, and takes the weights, `CASE-N.pt`. Plain SGD and
no dropout, so that the weights afterwards tell the gradients. One process sees the batch that two see together.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from packaging.version import Version
from sentence_transformers.cross_encoder import losses as cross_losses
from sentence_transformers.multi_vector_encoder import losses as late_losses
from sentence_transformers.sparse_encoder import losses as sparse_losses

from sentence_transformers import (
    CrossEncoder,
    CrossEncoderTrainer,
    MultiVectorEncoder,
    MultiVectorEncoderTrainer,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SparseEncoder,
    SparseEncoderTrainer,
    losses,
)

WORDS = ["cat", "river", "dog and cat", "a table", "some bread", "the train leaves", "rain", "a letter"]
PAIRS = {"anchor": WORDS, "positive": [f"{word} again and {word}" for word in WORDS]}
SHORT = ["a", "b", "c", "d", "e", "f", "g", "h"]
UNEVEN = {"anchor": SHORT, "positive": [*SHORT[4:], *(f"{letter} b c d e f g h i j k l" for letter in SHORT[:4])]}
"""Texts of which the second process has the long ones."""


SHARDS_ON_CPU = Version(torch.__version__) >= Version("2.9")
"""Whether FSDP2 averages gradients over gloo, the only way between processes without a GPU."""


def sharded(layer: str) -> dict[str, Any]:
    config = {"version": 2, "transformer_layer_cls_to_wrap": [layer], "state_dict_type": "FULL_STATE_DICT"}
    return {"fsdp": True, "fsdp_config": config}


@dataclass(frozen=True)
class Case:
    """A kind of model, its loss, and how processes share the work.

    Attributes:
        model: class of the model.
        trainer: class of its trainer.
        loss: model, whether there are several processes -> loss.
        columns: the data.
        sharing: further arguments where there are several processes; DDP by default.
    """

    model: Any
    trainer: Any
    loss: Callable[[Any, bool], Any]
    columns: dict[str, list[Any]] = field(default_factory=lambda: PAIRS)
    sharing: dict[str, Any] = field(default_factory=dict)


def gathering(kind: Any, **options: Any) -> Callable[[Any, bool], Any]:
    return lambda model, several: kind(model, gather_across_devices=several, **options)


def splade(model: SparseEncoder, several: bool) -> Any:
    """Without the regulariser, which is of the batch of each process."""
    inner = sparse_losses.SparseMultipleNegativesRankingLoss(model, gather_across_devices=several)
    return sparse_losses.SpladeLoss(model, inner, document_regularizer_weight=0.0)


class OwnStep(late_losses.CachedMultiVectorMultipleNegativesRankingLoss):
    """Embeds column by column, so that each process has tensors as long as its own texts."""

    def embed_minibatch(self, *args: Any, **kwargs: Any) -> Any:
        return super().embed_minibatch(*args, **kwargs)


DENSE = (SentenceTransformer, SentenceTransformerTrainer)
LATE = (MultiVectorEncoder, MultiVectorEncoderTrainer)
CASES = {
    "dense": Case(*DENSE, gathering(losses.MultipleNegativesRankingLoss)),
    "dense-cached": Case(*DENSE, gathering(losses.CachedMultipleNegativesRankingLoss, mini_batch_size=3)),
    "dense-fsdp": Case(*DENSE, gathering(losses.MultipleNegativesRankingLoss), sharing=sharded("BertLayer")),
    "dense-cached-fsdp": Case(
        *DENSE,
        gathering(losses.CachedMultipleNegativesRankingLoss, mini_batch_num_tokens=16),
        UNEVEN,
        sharded("BertLayer"),
    ),
    "padded-fsdp": Case(*DENSE, gathering(losses.MultipleNegativesRankingLoss), UNEVEN, sharded("MPNetLayer")),
    "cross": Case(
        CrossEncoder,
        CrossEncoderTrainer,
        lambda model, several: cross_losses.BinaryCrossEntropyLoss(model),
        PAIRS | {"label": [1.0, 0.0] * 4},
    ),
    "sparse": Case(SparseEncoder, SparseEncoderTrainer, splade),
    "late": Case(*LATE, gathering(late_losses.MultiVectorMultipleNegativesRankingLoss)),
    "late-cached": Case(*LATE, gathering(late_losses.CachedMultiVectorMultipleNegativesRankingLoss, mini_batch_size=3)),
    "late-cached-own": Case(*LATE, gathering(OwnStep, mini_batch_size=3), UNEVEN),
}


class InOrder(torch.utils.data.BatchSampler):
    """Rows as they come."""

    def __init__(self, dataset: Dataset, batch_size: int, drop_last: bool, **kwargs: object) -> None:
        super().__init__(range(len(dataset)), batch_size, drop_last)


@cache
def allow_sharding_on_cpu() -> None:
    """Let accelerate take these processes for ones with a GPU each, which are the only ones that it shards."""
    from accelerate.state import DistributedType, PartialState

    before = PartialState.__init__

    def pretend(self: Any, *args: Any, **kwargs: Any) -> None:
        before(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = pretend


def step(case: Case, model_folder: Path, out: Path, processes: int) -> None:
    model = case.model(str(model_folder), device="cpu")
    for module in model:
        if hasattr(module, "auto_model"):
            _ = module.auto_model  # loaded, so that its dropout can be turned off
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    before = {key: value.clone() for key, value in model.state_dict().items()}
    args = case.trainer.training_args_class(
        output_dir=f"{out}.run",
        max_steps=1,
        per_device_train_batch_size=8 // processes,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        max_grad_norm=0,
        lr_scheduler_type="constant",
        use_cpu=True,
        batch_sampler=InOrder,
        **(case.sharing if processes > 1 else {}),
    )
    trainer = case.trainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_dict(case.columns),
        loss=case.loss(model, processes > 1),
        optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 1e-2}),
    )
    assert trainer.accelerator.num_processes == processes
    assert trainer.is_fsdp_enabled == bool(case.sharing and processes > 1)
    trainer.train()
    trainer.save_model(f"{out}.model")
    if int(os.environ["RANK"]) == 0:
        saved = case.model(f"{out}.model", device="cpu")
        _ = saved[0].auto_model
        torch.save({"before": before, "after": dict(saved.state_dict())}, out)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # who saves is later, and needs the other's connections until it is done


def main(folder: str) -> None:
    processes = int(os.environ["WORLD_SIZE"])
    for name in sorted(CASES, key=lambda name: bool(CASES[name].sharing)):
        if CASES[name].sharing and not SHARDS_ON_CPU:
            continue
        if CASES[name].sharing and processes > 1:  # these come last
            allow_sharding_on_cpu()
        print(name, file=sys.stderr)
        step(CASES[name], Path(folder, name.partition("-")[0]), Path(folder, f"{name}-{processes}.pt"), processes)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # gloo's destructors join its threads, and these may wait for the interpreter for ever


if __name__ == "__main__":
    faulthandler.dump_traceback_later(500, exit=True)  # processes that wait for each other say where
    main(*sys.argv[1:])
