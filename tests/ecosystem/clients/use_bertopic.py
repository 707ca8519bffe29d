"""BERTopic: topics are clusters of embeddings, named by their words."""

from collections import Counter

from bertopic import BERTopic
from common import MODEL, expect, posts
from sklearn.cluster import KMeans
from umap import UMAP

from sentence_transformers import SentenceTransformer

documents, groups = posts("train", each=60)
topics = BERTopic(
    embedding_model=SentenceTransformer(MODEL),
    umap_model=UMAP(n_neighbors=10, n_components=5, metric="cosine", random_state=1),
    hdbscan_model=KMeans(4, random_state=1, n_init=10),
)
found, _ = topics.fit_transform(documents)
largest = sum(Counter(g for g, t in zip(groups, found, strict=True) if t == topic).most_common(1)[0][1]
              for topic in set(found))  # fmt: skip
expect(
    largest / len(documents) > 0.8, "share of the posts that are with their group", round(largest / len(documents), 3)
)
expect(len(topics.get_topic_info()) == 4, "four topics", [topics.get_topic(t)[0][0] for t in range(4)])
names, scores = topics.find_topics("rockets and satellites", top_n=1)
expect(scores[0] > 0.2, "a topic is found by its meaning", (topics.get_topic(names[0])[:3], round(scores[0], 3)))
guessed, _ = topics.transform(["the shuttle was launched into orbit by nasa"])
expect(guessed[0] == names[0], "a new text goes to that topic")
