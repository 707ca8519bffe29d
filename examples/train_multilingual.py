"""Cross-lingual distillation: a student learns to give translations the vector of the English original, with MSELoss.

The teacher is all-MiniLM-L6-v2. The student begins as the teacher with a tokenizer for all languages: the teacher's
words, and behind them word pieces trained on the texts, whose vectors begin as the mean of the teacher's pieces. Local
data: the Debian handbook, the same paragraphs in English, German and French, cut into sentences where all have as many.
Hub data: sentence-transformers/parallel-sentences-talks with the same student.
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
from transformers import PreTrainedTokenizerFast

from sentence_transformers import SentenceTransformer, losses
from sentence_transformers.evaluation import MSEEvaluator, SequentialEvaluator, TranslationEvaluator

LANGUAGES = ("en-US", "de-DE", "fr-FR")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def local() -> list[tuple[str, ...]]:
    rows = []
    for paragraphs in texts.parallel(*LANGUAGES):
        sentences = [re.split(r"(?<=[.!?]) +(?=[A-ZÄÖÜÀÉ])", text) for text in paragraphs]
        if len({len(part) for part in sentences}) == 1:
            rows += list(zip(*sentences, strict=True))
    rows = [row for row in dict.fromkeys(rows) if len(set(row)) == len(row)]  # some are not translated
    return [row for row in rows if all(20 < len(text) < 300 for text in row)]


def hub() -> list[tuple[str, ...]]:
    parts = [
        load_dataset("sentence-transformers/parallel-sentences-talks", f"en-{x}", split="train") for x in ("de", "fr")
    ]
    columns = [dict(zip(part["english"][:200_000], part["non_english"][:200_000], strict=True)) for part in parts]
    return [(text, columns[0][text], columns[1][text]) for text in columns[0] if text in columns[1]]


def make_tokenizer(corpus: list[str], known: dict[str, int]) -> PreTrainedTokenizerFast:
    """The words of `known` with their numbers, and behind them those of the languages that it does not know."""
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trained.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=12_000, special_tokens=SPECIAL))
    words = dict(known)
    for word in trained.get_vocab():
        words.setdefault(word, len(words))
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = trained.normalizer, trained.pre_tokenizer
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(word, words[word]) for word in ("[CLS]", "[SEP]")]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)


def make_student(corpus: list[str], teacher: SentenceTransformer, folder: str) -> SentenceTransformer:
    """The teacher with a tokenizer for all languages; a new word begins as the mean of its pieces for the teacher."""
    tokenizer = make_tokenizer(corpus, teacher.tokenizer.get_vocab())
    teacher.save_pretrained(folder)
    student = SentenceTransformer(folder, device="cpu")
    first = len(teacher.tokenizer)
    new = [word.removeprefix("##") for word in tokenizer.convert_ids_to_tokens(range(first, len(tokenizer)))]
    student.transformers_model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    rows = student.transformers_model.get_input_embeddings().weight
    with torch.no_grad():
        for i, pieces in enumerate(teacher.tokenizer(new, add_special_tokens=False)["input_ids"], first):
            rows[i] = rows[pieces].mean(0)
    student.tokenizer = tokenizer
    return student


def main() -> None:
    chosen = options(__doc__, steps=240, batch_size=64, learning_rate=2e-4)
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
    print(f"{len(known):,} rows in {len(LANGUAGES)} languages to learn from, {len(new)} to measure with")
    train(student, Dataset.from_dict(columns), losses.MSELoss(student), SequentialEvaluator(parts), chosen)
    print(f"model folder: {Path(chosen.output, 'final')}")


if __name__ == "__main__":
    main()
