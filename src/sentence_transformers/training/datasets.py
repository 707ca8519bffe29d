"""Data sets of `InputExample`, as `model.fit` and older scripts use them."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset, IterableDataset

from sentence_transformers.errors import InputError, MissingExtraError
from sentence_transformers.training.legacy_readers import opened
from sentence_transformers.util.input_example import InputExample

if TYPE_CHECKING:
    from sentence_transformers.encoders.sentence_transformer import SentenceTransformer
    from sentence_transformers.protocols import Encoder

logger = logging.getLogger(__name__)


class SentencesDataset(Dataset):
    """A list of examples.

    Args:
        examples: the examples.
        model: kept for compatibility.
    """

    def __init__(self, examples: list[InputExample], model: object = None) -> None:
        self.examples = examples

    def __getitem__(self, item: int) -> InputExample:
        return self.examples[item]

    def __len__(self) -> int:
        return len(self.examples)


class DenoisingAutoEncoderDataset(Dataset):
    """Damaged texts with the originals, damaged anew each time.

    Args:
        sentences: the texts.
        noise_fn: text -> damaged text; by default words are deleted.
    """

    def __init__(self, sentences: list[str], noise_fn: Callable[[str], str] | None = None) -> None:
        self.sentences = sentences
        self.noise_fn = DenoisingAutoEncoderDataset.delete if noise_fn is None else noise_fn

    def __getitem__(self, item: int) -> InputExample:
        text = self.sentences[item]
        return InputExample(texts=[self.noise_fn(text), text])

    def __len__(self) -> int:
        return len(self.sentences)

    @staticmethod
    def delete(text: str, del_ratio: float = 0.6) -> str:
        """The text with a share of its words deleted at random, at least one kept; needs the `nltk` package."""
        try:
            from nltk import word_tokenize
            from nltk.tokenize.treebank import TreebankWordDetokenizer
        except ImportError as error:
            raise MissingExtraError("nltk", "nltk", "DenoisingAutoEncoderDataset.delete") from error
        words = word_tokenize(text)
        if not words:
            return text
        kept = np.random.rand(len(words)) > del_ratio
        if not kept.any():
            kept[np.random.choice(len(words))] = True
        return TreebankWordDetokenizer().detokenize(np.array(words)[kept])


class NoDuplicatesDataLoader:
    """Batches of examples in which no text occurs twice.

    Args:
        train_examples: the examples; their order is shuffled at each pass.
        batch_size: examples per batch.
    """

    def __init__(self, train_examples: list[InputExample], batch_size: int) -> None:
        self.train_examples, self.batch_size = train_examples, batch_size
        self.data_pointer = 0
        self.collate_fn: Callable[[list[Any]], Any] | None = None
        random.shuffle(self.train_examples)

    def __iter__(self) -> Iterator[Any]:
        for _ in range(len(self)):
            batch: list[InputExample] = []
            used: set[str] = set()
            passed = 0
            while len(batch) < self.batch_size:
                if passed > 2 * len(self.train_examples):  # all of them were seen, whenever they were shuffled
                    raise InputError(
                        f"A batch of {self.batch_size} examples without duplicates cannot be filled: all others share "
                        f"a text with its {len(batch)}. Remove repeated examples, or make batches smaller."
                    )
                example = self.train_examples[self.data_pointer]
                texts = {text.strip().lower() for text in example.texts or []}
                if used.isdisjoint(texts):
                    batch.append(example)
                    used |= texts
                    passed = 0
                passed += 1
                self.data_pointer += 1
                if self.data_pointer >= len(self.train_examples):
                    self.data_pointer = 0
                    random.shuffle(self.train_examples)
            yield self.collate_fn(batch) if self.collate_fn is not None else batch

    def __len__(self) -> int:
        return len(self.train_examples) // self.batch_size


class SentenceLabelDataset(IterableDataset):
    """Examples of one text and a label, so many of one label one after the other.

    Args:
        examples: the examples.
        samples_per_label: examples of one label that follow each other; labels with fewer are left out.
        with_replacement: whether an example may come again before the others of its label.

    Labels take turns, in a random order, until as many examples were drawn as there are; a label with too few left
    begins anew.
    """

    def __init__(
        self, examples: list[InputExample], samples_per_label: int = 2, with_replacement: bool = False
    ) -> None:
        super().__init__()
        groups: dict[Any, list[InputExample]] = {}
        for example in examples:
            groups.setdefault(example.label, []).append(example)
        self.groups = [group for group in groups.values() if len(group) >= samples_per_label]
        if not self.groups:
            raise InputError(f"No label has {samples_per_label} examples.")
        self.samples_per_label, self.with_replacement = samples_per_label, with_replacement

    def __iter__(self) -> Iterator[InputExample]:
        left: list[list[InputExample]] = [[] for _ in self.groups]
        drawn, count = 0, self.samples_per_label
        while drawn < len(self):
            for i in random.sample(range(len(left)), len(left)):
                if self.with_replacement or len(left[i]) < count:
                    left[i] = random.sample(self.groups[i], len(self.groups[i]))
                yield from left[i][:count]
                left[i] = left[i][count:]
                drawn += count
                if drawn >= len(self):
                    return

    def __len__(self) -> int:
        return sum(map(len, self.groups))


class ParallelSentencesDataset(Dataset):
    """Translations with the teacher's vector of the first language: examples of one text and that vector.

    Args:
        student_model: kept for compatibility.
        teacher_model: anything with an `encode` method.
        batch_size: for encoding.
        use_embedding_cache: keep the teacher's vectors.
    """

    def __init__(
        self,
        student_model: SentenceTransformer,
        teacher_model: Encoder,
        batch_size: int = 8,
        use_embedding_cache: bool = True,
    ) -> None:
        self.student_model, self.teacher_model = student_model, teacher_model
        self.batch_size, self.use_embedding_cache = batch_size, use_embedding_cache
        self.datasets: list[list[list[str]]] = []
        self.dataset_indices: list[int] = []
        self.datasets_iterator: list[int] = []
        self.copy_dataset_index: list[int] = []
        self.cache: list[InputExample] = []
        self.embedding_cache: dict[str, Any] = {}
        self.num_sentences = 0

    def load_data(
        self, filepath: str, weight: int = 100, max_sentences: int | None = None, max_sentence_length: int | None = 128
    ) -> None:
        """Add a file of translations: one a line, languages separated by tabs; also gzipped.

        Args:
            weight: how often this data set is drawn from, against others.
            max_sentences: lines taken.
            max_sentence_length: lines with a longer text, in characters, are left out.
        """
        with opened(filepath) as lines:
            rows = [line.strip().split("\t") for line in lines]
        self.add_dataset(rows, weight, max_sentences, max_sentence_length)

    def add_dataset(
        self,
        parallel_sentences: list[list[str]],
        weight: int = 100,
        max_sentences: int | None = None,
        max_sentence_length: int | None = 128,
    ) -> None:
        """Add translations; see `load_data`."""
        rows: dict[str, set[str]] = {}
        for sentences in parallel_sentences:
            if max_sentence_length is None or max(map(len, sentences)) <= max_sentence_length:
                rows.setdefault(sentences[0], set()).update(sentences)
                if max_sentences is not None and 0 < max_sentences <= len(rows):
                    break
        if not rows:
            raise InputError("There are no translations, or all are longer than max_sentence_length.")
        self.num_sentences += sum(map(len, rows.values()))
        number = len(self.datasets)
        self.datasets.append([[source, *sorted(texts)] for source, texts in rows.items()])
        self.datasets_iterator.append(0)
        self.dataset_indices.extend([number] * weight)

    def generate_data(self) -> None:
        """Fill the cache with examples of the next rows."""
        rows = [self.next_entry(index) for index in random.sample(self.dataset_indices, len(self.dataset_indices))]
        vectors = self.get_embeddings([row[0] for row in rows])
        for row, vector in zip(rows, vectors, strict=True):
            self.cache += [InputExample(texts=[text], label=vector) for text in row[1:]]
        random.shuffle(self.cache)

    def next_entry(self, data_idx: int) -> list[str]:
        """The next row of a data set; its order is shuffled when it is through."""
        rows = self.datasets[data_idx]
        row = rows[self.datasets_iterator[data_idx]]
        self.datasets_iterator[data_idx] += 1
        if self.datasets_iterator[data_idx] >= len(rows):
            self.datasets_iterator[data_idx] = 0
            random.shuffle(rows)
        return row

    def get_embeddings(self, sentences: list[str]) -> Any:
        """The teacher's vectors."""
        options = {"batch_size": self.batch_size, "show_progress_bar": False, "convert_to_numpy": True}
        if not self.use_embedding_cache:
            return self.teacher_model.encode(sentences, **options)
        fresh = list(dict.fromkeys(text for text in sentences if text not in self.embedding_cache))
        if fresh:
            self.embedding_cache.update(zip(fresh, self.teacher_model.encode(fresh, **options), strict=True))
        return [self.embedding_cache[text] for text in sentences]

    def __len__(self) -> int:
        return self.num_sentences

    def __getitem__(self, idx: int) -> InputExample:
        if not self.datasets:
            raise InputError("There is no data yet: call load_data or add_dataset first.")
        if not self.cache:
            self.generate_data()
        return self.cache.pop()
