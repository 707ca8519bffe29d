"""Pictures where people would rather look than read: a map of embeddings, a table of similarities, a training curve.

    from sentence_transformers.plots import plot_embeddings, plot_similarity, plot_training

    plot_embeddings(embeddings, "map.html", labels=topics, texts=texts)      # 2-D, coloured by label, texts on hover
    plot_similarity(model.similarity(e, e), "heat.svg", rows=texts)
    plot_training("my-model", "curve.png")                                   # of a saved model's training

The suffix decides the form: .svg and .html need nothing besides this library and load nothing from elsewhere, .png is
drawn by matplotlib. `charts` says what is to be seen, `svg` and `png` draw it.
"""

from __future__ import annotations

from sentence_transformers.plots.functions import plot_embeddings, plot_similarity, plot_training

__all__ = ["plot_embeddings", "plot_similarity", "plot_training"]
