"""Python code in model cards and pull requests: how a model of each kind is loaded and called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
RETRIEVAL = [
    "Which planet is known as the Red Planet?",
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
]
PAIRS = [
    ["How many calories are in an egg?", "An egg has 55 to 80 calories, depending on its size."],
    ["How many calories are in an egg?", "Egg whites are low in calories and have no fat."],
    ["How many calories are in an egg?", "Most of the calories of an egg come from the yolk."],
]

TRY_ENCODE = """\
embeddings = model.encode(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
print(embeddings.shape)

similarities = model.similarity(embeddings, embeddings)
print(similarities)"""

TRY_SEARCH = """\
query_embeddings = model.encode_query(["Which planet is known as the Red Planet?"])
document_embeddings = model.encode_document(["Mars is the Red Planet.", "Venus is Earth's twin."])

similarities = model.similarity(query_embeddings, document_embeddings)
print(similarities)"""

TRY_PREDICT = """\
scores = model.predict([("The weather is lovely today.", "It's so sunny outside!")])
print(scores)

rankings = model.rank("The weather is lovely today.", ["It's so sunny outside!", "He drove to the stadium."])
print(rankings)"""


def whole(class_name: str, model_id: str, calls: str) -> str:
    """Markdown of code that loads a model and then makes `calls`."""
    return f"""\
```python
from sentence_transformers import {class_name}

model = {class_name}("{model_id}")
{calls}
```"""


def encode(texts: Sequence[Any]) -> str:
    """Texts with texts."""
    return f"""\
sentences = [
{listed(texts)}
]
embeddings = model.encode(sentences)
print(embeddings.shape)

similarities = model.similarity(embeddings, embeddings)
print(similarities)"""


def search(texts: Sequence[Any], first: str = "") -> str:
    """A query, the first of the texts, with documents; `first` picks one of several embeddings."""
    return f"""\
queries = [
{listed(texts[:1])}
]
documents = [
{listed(texts[1:])}
]
query_embeddings = model.encode_query(queries)
document_embeddings = model.encode_document(documents)
print(query_embeddings{first}.shape, document_embeddings{first}.shape)

similarities = model.similarity(query_embeddings, document_embeddings)
print(similarities)"""


def predict(pairs: Sequence[Any]) -> str:
    """Scores of pairs."""
    return f"""\
pairs = [
{listed(pairs)}
]
scores = model.predict(pairs)
print(scores)"""


def rank(pairs: Sequence[Any]) -> str:
    """The second parts of the pairs, ranked for the first of the first."""
    return f"""\
rankings = model.rank(
    {pairs[0][0]!r},
    [
{listed([second for _, second in pairs], indent=8)}
    ],
)
print(rankings)"""


def listed(values: Sequence[Any], indent: int = 4) -> str:
    """The lines of a list in Python."""
    return "\n".join(f"{' ' * indent}{value!r}," for value in values)


def commented(value: object) -> str:
    """A printed value as Python comments."""
    return "\n".join(f"# {line}" for line in str(value).splitlines())
