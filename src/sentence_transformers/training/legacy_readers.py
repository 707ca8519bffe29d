"""Readers of the files that training examples were once kept in. New code puts texts into a `datasets.Dataset`."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Literal, TextIO

from sentence_transformers.errors import InputError
from sentence_transformers.util.input_example import InputExample


def opened(path: str | Path) -> TextIO:
    """A text file, also a gzipped one."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"There is no file {file}.")
    return gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8")  # type: ignore[return-value]


def cell(row: list[str], index: int, where: str) -> str:
    """A cell of a row; `InputError` saying where it is missing."""
    if index >= len(row):
        raise InputError(f"{where} has {len(row)} columns; column {index} is wanted. Is the separator right?")
    return row[index]


class LabelSentenceReader:
    """Lines with a label and a text; labels become numbers in the order in which they come.

    Args:
        folder: where the files are.
        label_col_idx, sentence_col_idx: columns of label and text.
        separator: between columns.
    """

    def __init__(self, folder: str, label_col_idx: int = 0, sentence_col_idx: int = 1, separator: str = "\t") -> None:
        self.folder, self.label_map = folder, dict[str, int]()
        self.label_col_idx, self.sentence_col_idx, self.separator = label_col_idx, sentence_col_idx, separator

    def get_examples(self, filename: str, max_examples: int = 0) -> list[InputExample]:
        """The examples of a file; 0 for all."""
        examples: list[InputExample] = []
        with opened(Path(self.folder, filename)) as lines:
            for number, line in enumerate(lines):
                row, where = line.strip().split(self.separator), f"Line {number + 1} of {filename}"
                label = self.label_map.setdefault(cell(row, self.label_col_idx, where), len(self.label_map))
                text = cell(row, self.sentence_col_idx, where)
                examples.append(InputExample(guid=f"{filename}-{number}", texts=[text], label=label))
                if 0 < max_examples <= len(examples):
                    break
        return examples


class NLIDataReader:
    """SNLI and MultiNLI: files s1.{name}, s2.{name} and labels.{name}, all gzipped, one text a line.

    Args:
        dataset_folder: where the files are.
    """

    def __init__(self, dataset_folder: str) -> None:
        self.dataset_folder = dataset_folder

    def get_examples(self, filename: str, max_examples: int = 0) -> list[InputExample]:
        """The examples of the files of one name; 0 for all."""
        columns = [opened(Path(self.dataset_folder, f"{part}.{filename}")) for part in ("s1", "s2", "labels")]
        examples = []
        for i, (first, second, label) in enumerate(zip(*columns, strict=True)):
            texts = [first.strip(), second.strip()]
            examples.append(InputExample(f"{filename}-{i}", texts, self.map_label(label.strip())))
            if 0 < max_examples <= len(examples):
                break
        for column in columns:
            column.close()
        return examples

    @staticmethod
    def get_labels() -> dict[str, int]:
        return {"contradiction": 0, "entailment": 1, "neutral": 2}

    def get_num_labels(self) -> int:
        return len(self.get_labels())

    def map_label(self, label: str) -> int:
        return self.get_labels()[label.strip().lower()]


class PairedFilesReader:
    """Files whose lines belong together: line i of each makes one example.

    Args:
        filepaths: the files.
    """

    def __init__(self, filepaths: list[str]) -> None:
        self.filepaths = filepaths

    def get_examples(self, max_examples: int = 0) -> list[InputExample]:
        """The examples; 0 for all."""
        files = [opened(path) for path in self.filepaths]
        examples = []
        for i, lines in enumerate(zip(*files, strict=False)):
            examples.append(InputExample(guid=str(i), texts=[line.strip() for line in lines], label=1))
            if 0 < max_examples <= len(examples):
                break
        for file in files:
            file.close()
        return examples


class STSDataReader:
    """Pairs of texts with a score.

    Args:
        dataset_folder: where the files are.
        s1_col_idx, s2_col_idx, score_col_idx: columns of the texts and the score.
        delimiter, quoting: of the CSV files.
        normalize_scores: bring scores to 0 … 1.
        min_score, max_score: the scores' range.
    """

    def __init__(
        self,
        dataset_folder: str,
        s1_col_idx: int = 0,
        s2_col_idx: int = 1,
        score_col_idx: int = 2,
        delimiter: str = "\t",
        quoting: Literal[0, 1, 2, 3] = csv.QUOTE_NONE,
        normalize_scores: bool = True,
        min_score: float = 0,
        max_score: float = 5,
    ) -> None:
        self.dataset_folder = dataset_folder
        self.s1_col_idx, self.s2_col_idx, self.score_col_idx = s1_col_idx, s2_col_idx, score_col_idx
        self.delimiter, self.quoting = delimiter, quoting
        self.normalize_scores, self.min_score, self.max_score = normalize_scores, min_score, max_score

    def get_examples(self, filename: str, max_examples: int = 0) -> list[InputExample]:
        """The examples of a file; 0 for all."""
        examples = []
        with opened(Path(self.dataset_folder, filename)) as file:
            for i, row in enumerate(csv.reader(file, delimiter=self.delimiter, quoting=self.quoting)):
                where = f"Line {i + 1} of {filename}"
                first, second, score = (
                    cell(row, column, where) for column in (self.s1_col_idx, self.s2_col_idx, self.score_col_idx)
                )
                value = float(score)
                if self.normalize_scores:
                    value = (value - self.min_score) / (self.max_score - self.min_score)
                examples.append(InputExample(guid=filename + str(i), texts=[first, second], label=value))
                if 0 < max_examples <= len(examples):
                    break
        return examples


class STSBenchmarkDataReader(STSDataReader):
    """The files of the STS benchmark."""

    def __init__(
        self,
        dataset_folder: str,
        s1_col_idx: int = 5,
        s2_col_idx: int = 6,
        score_col_idx: int = 4,
        delimiter: str = "\t",
        quoting: Literal[0, 1, 2, 3] = csv.QUOTE_NONE,
        normalize_scores: bool = True,
        min_score: float = 0,
        max_score: float = 5,
    ) -> None:
        super().__init__(
            dataset_folder,
            s1_col_idx,
            s2_col_idx,
            score_col_idx,
            delimiter,
            quoting,
            normalize_scores,
            min_score,
            max_score,
        )


class TripletReader:
    """Anchor, positive and negative in three columns.

    Args:
        dataset_folder: where the files are.
        s1_col_idx, s2_col_idx, s3_col_idx: the columns.
        has_header: whether the first line is left out.
        delimiter, quoting: of the CSV files.
    """

    def __init__(
        self,
        dataset_folder: str,
        s1_col_idx: int = 0,
        s2_col_idx: int = 1,
        s3_col_idx: int = 2,
        has_header: bool = False,
        delimiter: str = "\t",
        quoting: Literal[0, 1, 2, 3] = csv.QUOTE_NONE,
    ) -> None:
        self.dataset_folder, self.has_header = dataset_folder, has_header
        self.s1_col_idx, self.s2_col_idx, self.s3_col_idx = s1_col_idx, s2_col_idx, s3_col_idx
        self.delimiter, self.quoting = delimiter, quoting

    def get_examples(self, filename: str, max_examples: int = 0) -> list[InputExample]:
        """The examples of a file; 0 for all."""
        examples = []
        with opened(Path(self.dataset_folder, filename)) as file:
            rows = csv.reader(file, delimiter=self.delimiter, quoting=self.quoting)
            if self.has_header:
                next(rows, None)
            for i, row in enumerate(rows):
                columns = (self.s1_col_idx, self.s2_col_idx, self.s3_col_idx)
                texts = [cell(row, column, f"Line {i + 1} of {filename}") for column in columns]
                examples.append(InputExample(texts=texts))
                if 0 < max_examples <= len(examples):
                    break
        return examples
