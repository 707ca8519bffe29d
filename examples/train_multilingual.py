"""Cross-lingual distillation: a student learns to give translations the vector of the English original, with MSELoss.

The teacher is all-MiniLM-L6-v2. The student is made here: a tokenizer trained on the texts of all languages, and a
smaller BERT with random weights that begins with the teacher's vectors for the words both know. Local data: the Debian
handbook, the same paragraphs in English, German and French, cut into sentences where both have as many. Hub data:
sentence-transformers/parallel-sentences-talks with the same student.
"""

from __future__ import annotations

import re
import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from common import options, split, texts, train
from datasets import Dataset, load_dataset
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from sentence_transformers import SentenceTransformer, losses
from sentence_transformers.evaluation import MSEEvaluator, SequentialEvaluator, TranslationEvaluator

LANGUAGES = ("en-US", "de-DE", "fr-FR")


def local() -> list[tuple[str, ...]]:
    rows = []
    for paragraphs in texts.parallel(*LANGUAGES):
        sentences = [re.split(r"(?<=[.!?]) +(?=[A-ZÄÖÜÀÉ])", text) for text in paragraphs]
        if len({len(part) for part in sentences}) == 1:
            rows += list(zip(*sentences, strict=True))
    return [row for row in dict.fromkeys(rows) if all(20 < len(text) < 300 for text in row)]


def hub() -> list[tuple[str, ...]]:
    parts = [
        load_dataset("sentence-transformers/parallel-sentences-talks", f"en-{x}", split="train") for x in ("de", "fr")
    ]
    columns = [dict(zip(part["english"][:200_000], part["non_english"][:200_000], strict=True)) for part in parts]
    return [(text, columns[0][text], columns[1][text]) for text in columns[0] if text in columns[1]]


def make_student(corpus: list[str], teacher: SentenceTransformer, folder: str) -> SentenceTransformer:
    """A model with a tokenizer of its own for the texts of `corpus`."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=12_000, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names).save_pretrained(folder)
    size = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 12, "num_hidden_layers": 3}
    student = BertModel(BertConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=128, **size))
    known, rows = teacher.tokenizer.get_vocab(), teacher.transformers_model.embeddings.word_embeddings.weight
    with torch.no_grad():
        for token, i in tokenizer.get_vocab().items():
            if token in known:
                student.embeddings.word_embeddings.weight[i] = rows[known[token]]
    student.save_pretrained(folder)
    return SentenceTransformer(folder, device="cpu")


def main() -> None:
    chosen = options(__doc__, steps=600, batch_size=64)
    rows = hub() if chosen.hub else local()
    known, new = split(rows, 200, chosen.seed)
    teacher = SentenceTransformer(chosen.model, device="cpu")
    torch.manual_seed(chosen.seed)
    with tempfile.TemporaryDirectory() as folder:
        student = make_student(list(chain.from_iterable(known)), teacher, folder)
    vectors = teacher.encode([row[0] for row in known])
    columns: dict[str, list[Any]] = {"sentence": [], "label": []}
    for row, vector in zip(known, vectors, strict=True):
        columns["sentence"] += row
        columns["label"] += [vector] * len(row)
    english = [row[0] for row in new]
    parts: list[Any] = []
    for i, language in enumerate(LANGUAGES[1:], 1):
        other, name = [row[i] for row in new], f"en-{language[:2]}"
        parts += [TranslationEvaluator(english, other, name=name), MSEEvaluator(english, other, teacher, name=name)]
    if chosen.learning_rate == 2e-5:
        chosen.learning_rate = 4e-4  # weights that begin at random
    print(f"{len(known):,} rows in {len(LANGUAGES)} languages to learn from, {len(new)} to measure with")
    train(student, Dataset.from_dict(columns), losses.MSELoss(student), SequentialEvaluator(parts), chosen)
    print(f"model folder: {Path(chosen.output, 'final')}")


if __name__ == "__main__":
    main()
