"""Distillation: a cross-encoder of two layers learns the scores of one of six.

    python examples/train_reranker.py --output teacher
    python examples/train_distilled_cross_encoder.py --teacher teacher/final

Data as in `train_reranker.py`, labels are the teacher's logits. The student begins with the teacher's first and last
layer. What is measured is the student's re-ranking for held-out queries, as there. Without --teacher a cross-encoder
with an untrained head shows that it runs.
"""

from __future__ import annotations

from common import cross_encoder, options, train
from datasets import Dataset
from sentence_transformers.cross_encoder.losses import MSELoss
from torch import nn
from train_reranker import evaluator_of, hub, local, with_negatives

from sentence_transformers import CrossEncoder, SentenceTransformer


def student_of(teacher: CrossEncoder, folder: str, layers: tuple[int, ...] = (0, -1)) -> CrossEncoder:
    """A cross-encoder with some of the teacher's layers."""
    teacher.save_pretrained(folder)
    student = CrossEncoder(folder, device="cpu")
    encoder = student.model.base_model.encoder
    encoder.layer = nn.ModuleList(encoder.layer[i] for i in layers)
    student.model.config.num_hidden_layers = len(layers)
    return student


def main() -> None:
    chosen = options(__doc__, steps=150, learning_rate=1e-4, teacher="the trained cross-encoder's folder")
    finder = SentenceTransformer("all-MiniLM-L6-v2", device="cpu")
    settings = {} if chosen.teacher else {"num_labels": 1}
    teacher = cross_encoder(chosen.teacher or chosen.model, max_length=128, **settings)
    known, held_out = (hub if chosen.hub else local)(chosen.seed)
    mined = with_negatives(known[: chosen.steps * chosen.batch_size // 2], finder)
    pairs = [(row["query"], row[name]) for row in mined for name in mined.column_names[1:]]
    scores = teacher.predict(pairs, activation_fn=nn.Identity()).tolist()
    columns = dict(zip(("query", "document"), zip(*pairs, strict=True), strict=True)) | {"score": scores}
    evaluator = evaluator_of(held_out, [document for _, document in known[-3000:]], finder)
    student = student_of(teacher, f"{chosen.output}/teacher")
    train(student, Dataset.from_dict(columns), MSELoss(student), evaluator, chosen)


if __name__ == "__main__":
    main()
