"""Rows of a file as documents of an index: id, text and metadata; long ones as passages."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from sentence_transformers.cli.exit_codes import usage_error
from sentence_transformers.cli.row_readers import Rows
from sentence_transformers.engine.prompts import document_side

if TYPE_CHECKING:
    from sentence_transformers.encoders.embedding import EmbeddingModel

CUT_TOGETHER = 64


class Document(NamedTuple):
    """What an index is given of a row, or of a passage."""

    id: Any
    text: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """How rows become documents.

    Attributes:
        column: of the texts.
        id_column: of the ids; default: row numbers.
        metadata: columns that are kept.
        passages: most tokens of a passage; None leaves documents whole.
        overlap: tokens that a passage shares with the one before.
        lengths: how many passages each document had, by id.
    """

    column: str | None
    id_column: str | None
    metadata: list[str]
    passages: int | None = None
    overlap: int = 0
    lengths: Counter[Any] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.overlap and self.passages is None:
            raise usage_error("there are no passages to overlap; give --passages.", "--overlap")

    @property
    def keeps_metadata(self) -> bool:
        return bool(self.metadata) or self.passages is not None

    def documents(self, rows: Rows, model: EmbeddingModel) -> Iterator[Document]:
        """The documents of a file, or their passages, as `model` reads them."""
        whole = self._whole(rows)
        return whole if self.passages is None else self._cut(whole, model)

    def _whole(self, rows: Rows) -> Iterator[Document]:
        for row, record in rows.with_texts(self.column, self.id_column):
            if missing := [name for name in self.metadata if name not in row]:
                raise usage_error(f"{rows.path} has no column {missing[0]!r}.", "--metadata")
            yield Document(record.id, record.text, {name: number_or_text(row[name]) for name in self.metadata})

    def _cut(self, documents: Iterator[Document], model: EmbeddingModel) -> Iterator[Document]:
        """Passages, with #0, #1, … behind the document's id, and in the metadata where they stand."""
        side = document_side(model, {})
        while part := list(itertools.islice(documents, CUT_TOGETHER)):
            texts = [document.text for document in part]
            for passage in model.split_texts(texts, self.passages, self.overlap, **side):
                whole = part[passage.document]
                place = {"document": whole.id, "start": passage.start, "stop": passage.stop}
                yield Document(f"{whole.id}#{self.lengths[whole.id]}", passage.text, whole.metadata | place)
                self.lengths[whole.id] += 1


def number_or_text(value: object) -> Any:
    """A field of a csv file that looks like a number, as that number, so that filters can compare it."""
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
