"""Is a text's translation the nearest of all, in both directions?"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sentence_transformers.evaluation.base import EmbeddingEvaluator, Measured, check_lengths, file_name
from sentence_transformers.protocols import Encoder
from sentence_transformers.search.blocks import Source, as_source, best_documents
from sentence_transformers.similarity import cos_sim

BLOCK = 4096


class TranslationEvaluator(EmbeddingEvaluator):
    """Share of texts whose translation, the text at the same place, is the most similar one.

    Args:
        source_sentences, target_sentences: texts and their translations.
        show_progress_bar, batch_size: for `encode`.
        name: put before the names of the metrics.
        print_wrong_matches: print the texts that found another one.
        write_csv: whether a call with an output folder adds a row to the CSV file.
        truncate_dim: keep only the first dimensions.

    Raises:
        InputError: for columns that are empty or of different lengths.
    """

    encode_options: ClassVar[dict[str, bool]] = {"convert_to_tensor": True}

    def __init__(
        self,
        source_sentences: list[str],
        target_sentences: list[str],
        show_progress_bar: bool = False,
        batch_size: int = 16,
        name: str = "",
        print_wrong_matches: bool = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__()
        check_lengths(source_sentences=source_sentences, target_sentences=target_sentences)
        self.source_sentences, self.target_sentences = source_sentences, target_sentences
        self.show_progress_bar, self.batch_size, self.name = show_progress_bar, batch_size, name
        self.print_wrong_matches, self.write_csv, self.truncate_dim = print_wrong_matches, write_csv, truncate_dim
        self.csv_file = file_name("translation_evaluation", name)
        self.csv_headers = ["epoch", "steps", "src2trg", "trg2src"]
        self.primary_metric = "mean_accuracy"

    def _evaluate(self, model: Encoder) -> Measured:
        sides = [as_source(self.embed_inputs(model, part)) for part in (self.source_sentences, self.target_sentences)]
        forth, back = (nearest(*pair) for pair in (sides, sides[::-1]))
        hits_there, hits_again = same_texts(self.target_sentences, forth), same_texts(self.source_sentences, back)
        if self.print_wrong_matches:
            for i in np.flatnonzero(~hits_there):
                print(f"{i}: {self.source_sentences[i]!r}\n  found  {self.target_sentences[forth[i]]!r}")
                print(f"  wanted {self.target_sentences[i]!r}")
        there, again = float(hits_there.mean()), float(hits_again.mean())
        metrics = {"src2trg_accuracy": there, "trg2src_accuracy": again, "mean_accuracy": (there + again) / 2}
        return metrics, [there, again]


def same_texts(texts: list[str], found: np.ndarray) -> np.ndarray:
    """(N,) whether the text found for each row is the row's own; any row with the same text counts."""
    return np.array([at == i or texts[at] == texts[i] for i, at in enumerate(found.tolist())])


def nearest(queries: Source, documents: Source) -> np.ndarray:
    """(Q,) the document that is most like each query, block by block."""
    return best_documents(queries, documents, 1, cos_sim, BLOCK, BLOCK)[1][:, 0].cpu().numpy()
