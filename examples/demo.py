"""Semantic search in half a minute: embed a few hundred real sentences, then answer three questions.

    make demo

The model comes from an installed package (nothing is downloaded from a model hub). The sentences are those of the
Python language reference, which every Python carries for its `help()`.
"""

from __future__ import annotations

import re
import time
from pydoc_data.topics import topics

from sentence_transformers import SentenceTransformer, util

QUESTIONS = [
    "What happens if an error occurs and nobody handles it?",
    "Can I change a list while I am looping over it?",
    "How do I clean up a file or a lock even when something goes wrong?",
]


def reference_sentences(most: int = 600) -> list[str]:
    """Plain sentences of the Python language reference, without code and mark-up, in the order of its chapters."""
    chapters = ("exceptions", "for", "with", "try", "while", "assignment", "class", "function", "import", "lambda")
    chapters += (
        "objects",
        "types",
        "sequence-types",
        "dict",
        "strings",
        "numbers",
        "context-managers",
        "del",
        "return",
    )
    text = "\n\n".join(topics[name] for name in chapters if name in topics)
    prose = [" ".join(block.split()) for block in text.split("\n\n") if not block.startswith((" ", "\t", "*", "="))]
    sentences = [
        s for block in prose for s in re.split(r"(?<=[.!?])\s+(?=[A-Z])", block.replace("*", "").replace('"', ""))
    ]
    good = [s for s in sentences if 40 <= len(s) <= 220 and s[0].isupper() and s[-1] in ".!?" and "::" not in s]
    return list(dict.fromkeys(good))[:most]


def main() -> None:
    sentences = reference_sentences()
    model = SentenceTransformer("all-MiniLM-L6-v2")

    start = time.perf_counter()
    embeddings = model.encode_document(sentences, show_progress_bar=True)
    print(f"{len(sentences)} sentences -> vectors of shape {embeddings.shape} in {time.perf_counter() - start:.1f} s")

    answers = util.semantic_search(model.encode_query(QUESTIONS), embeddings, top_k=3)
    for question, hits in zip(QUESTIONS, answers, strict=True):
        print(f"\n{question}")
        for hit in hits:
            print(f"  {hit['score']:.3f}  {sentences[hit['corpus_id']]}")


if __name__ == "__main__":
    main()
