"""NLI: three classes of pairs by a cross-encoder, with cross entropy. Data as in `train_nli.py`."""

from __future__ import annotations

from common import cross_encoder, options, train
from sentence_transformers.cross_encoder.evaluation import CrossEncoderClassificationEvaluator
from sentence_transformers.cross_encoder.losses import CrossEntropyLoss
from train_nli import hub, local


def main() -> None:
    chosen = options(__doc__, steps=150, learning_rate=5e-5)
    data, held_out = (hub if chosen.hub else local)(chosen.seed)
    evaluator = CrossEncoderClassificationEvaluator(
        [[premise, hypothesis] for premise, hypothesis, _ in held_out], [label for *_, label in held_out], name="test"
    )
    model = cross_encoder(chosen.model, num_labels=3, max_length=128)
    train(model, data, CrossEntropyLoss(model), evaluator, chosen)


if __name__ == "__main__":
    main()
