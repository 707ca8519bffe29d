"""One training example, as `model.fit` and older scripts use it; new code puts texts into a `datasets.Dataset`."""

from __future__ import annotations


class InputExample:
    """One example: texts and a label.

    Args:
        guid: an id.
        texts: the texts.
        label: a number.
    """

    def __init__(self, guid: str = "", texts: list[str] | None = None, label: int | float = 0) -> None:
        self.guid, self.texts, self.label = guid, texts, label

    def __str__(self) -> str:
        return f"<InputExample> label: {self.label}, texts: {'; '.join((self.texts or [''])[:10])}"
