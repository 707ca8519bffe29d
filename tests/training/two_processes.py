"""One training step, in one process or in two: `torchrun --nproc-per-node N two_processes.py MODEL OUT MODE`.

Plain SGD with learning rate 1 and no dropout, so that the weights afterwards tell the gradients. One process sees the
batch that two see together.
"""

from __future__ import annotations

import os
import sys

import torch
from datasets import Dataset

from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
)

model_folder, out, mode = sys.argv[1:]
processes = int(os.environ["WORLD_SIZE"])
model = SentenceTransformer(model_folder, device="cpu")
for part in model.transformers_model.modules():
    if isinstance(part, torch.nn.Dropout):
        part.p = 0.0
words = ["cat", "river", "dog and cat", "a table", "some bread", "the train leaves", "rain", "a letter"]
pairs = Dataset.from_dict({"anchor": words, "positive": [f"{w} again and {w}" for w in words]})


class InOrder(torch.utils.data.BatchSampler):
    """Rows as they come."""

    def __init__(self, dataset: Dataset, batch_size: int, drop_last: bool, **kwargs: object) -> None:
        super().__init__(range(len(dataset)), batch_size, drop_last)


settings = {}
if mode == "fsdp" and processes > 1:
    settings = {"fsdp": True, "fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": ["BertLayer"],
                                              "state_dict_type": "FULL_STATE_DICT"}}  # fmt: skip
args = SentenceTransformerTrainingArguments(
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
    **settings,
)
kind = losses.CachedMultipleNegativesRankingLoss if "cached" in mode else losses.MultipleNegativesRankingLoss
options = {"mini_batch_size": 3} if "cached" in mode else {}
loss = kind(model, gather_across_devices=processes > 1, **options)
trainer = SentenceTransformerTrainer(
    model=model,
    args=args,
    train_dataset=pairs,
    loss=loss,
    optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 1e-2}),
)
trainer.train()
trainer.save_model(f"{out}.model")
if int(os.environ["RANK"]) == 0:
    saved = SentenceTransformer(f"{out}.model", device="cpu")
    _ = saved.transformers_model
    torch.save(dict(saved.state_dict()), out)
if torch.distributed.is_initialized():
    torch.distributed.barrier()  # the process that saves is later, and needs the other's connections until it is done
    torch.distributed.destroy_process_group()
