"""NLI: three classes of pairs, with SoftmaxLoss; the classifier is measured, and left behind.

Local data: WordNet. "This is a kind of X" follows from the definition of a thing if X is more general, contradicts it
if X is something else, and is neutral if X is more special. Hub data: sentence-transformers/all-nli, "pair-class".
"""

from __future__ import annotations

import random
from typing import Any

from common import options, split, texts, train
from datasets import Dataset, load_dataset
from torch.utils.data import DataLoader

from sentence_transformers import InputExample, SentenceTransformer, losses
from sentence_transformers.evaluation import LabelAccuracyEvaluator


def local(seed: int) -> tuple[Any, list[Any]]:
    chance, things = random.Random(seed), [one for one in texts.synsets() if one.hypernyms][:20_000]
    below: dict[str, list[str]] = {}
    for one in things:
        below.setdefault(one.hypernyms[0], []).append(one.words[0])
    rows = []
    for one in things:
        special = below.get(one.words[0])
        others = [one.hypernyms[0], special[0] if special else None, chance.choice(things).hypernyms[0]]
        rows += [(one.definition, f"This is a kind of {x}.", label) for label, x in enumerate(others) if x]
    known, new = split(rows, 300, seed)
    columns = dict(zip(("premise", "hypothesis", "label"), zip(*known, strict=True), strict=True))
    return Dataset.from_dict(columns), new


def hub(seed: int) -> tuple[Any, list[Any]]:
    data = load_dataset("sentence-transformers/all-nli", "pair-class")
    rows = data["dev"].select(range(1000))
    return data["train"], [(row["premise"], row["hypothesis"], row["label"]) for row in rows]


def main() -> None:
    chosen = options(__doc__)
    data, held_out = (hub if chosen.hub else local)(chosen.seed)
    model = SentenceTransformer(chosen.model, device="cpu")
    loss = losses.SoftmaxLoss(model, model.get_embedding_dimension(), num_labels=3)
    examples: Any = [InputExample(texts=[a, b], label=label) for a, b, label in held_out]
    evaluator = LabelAccuracyEvaluator(DataLoader(examples, batch_size=32), name="test", softmax_model=loss)
    train(model, data, loss, evaluator, chosen, learning_rate_mapping={"^loss": 1e-3})


if __name__ == "__main__":
    main()
