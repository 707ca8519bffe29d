"""From a model's name on the command line to a model.

A folder says in `config_sentence_transformers.json` which kind it holds; a plain classifier is a cross-encoder, any
other plain transformer a dense model. A short name is looked for among the models of each kind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sentence_transformers.cli.exit_codes import only_our_progress, usage_error
from sentence_transformers.cli.options import Kind, Side

if TYPE_CHECKING:
    from sentence_transformers.protocols import WithPrompts
    from sentence_transformers.storage.files import Source

CLASSES = {
    Kind.dense: "SentenceTransformer",
    Kind.sparse: "SparseEncoder",
    Kind.cross: "CrossEncoder",
    Kind.late: "MultiVectorEncoder",
}
ORGANIZATIONS = {
    Kind.dense: "sentence-transformers",
    Kind.sparse: "sparse-encoder",
    Kind.cross: "cross-encoder",
    Kind.late: None,
}


@dataclass(frozen=True)
class Loading:
    """How a model is to be loaded: the options of the command line."""

    device: str | None = None
    backend: str = "torch"
    revision: str | None = None
    offline: bool = False
    trust_remote_code: bool = False

    def arguments(self) -> dict[str, Any]:
        """As arguments of a model class."""
        return {
            "device": self.device,
            "backend": str(self.backend),
            "revision": self.revision,
            "local_files_only": self.offline,
            "trust_remote_code": self.trust_remote_code,
        }

    def of_another(self) -> Loading:
        """The same for a second model of the command, which has a revision of its own and is computed by torch."""
        return replace(self, backend="torch", revision=None)


def kind_of(name: str, loading: Loading, *allowed: Kind) -> Kind:
    """The kind of model that a name stands for.

    Args:
        allowed: kinds that a plain transformer, which can become several, is taken for first; then the kind whose
            organization is named.
    """
    from sentence_transformers.storage.files import Source

    organization = name.partition("/")[0]
    kinds = sorted(Kind, key=lambda kind: (bool(allowed) and kind not in allowed, ORGANIZATIONS[kind] != organization))
    for kind in kinds:  # what is on this machine, of any kind
        if found := _kind_at(Source(name, revision=loading.revision, local_files_only=True), kind):
            return found
    for kind in () if loading.offline else kinds:
        if found := _kind_at(Source(name, revision=loading.revision), kind):
            return found
    return kinds[0]  # whose loader says where it was looked for


def _kind_at(source: Source, kind: Kind) -> Kind | None:
    """The kind of the model that is found among those of `kind`, or None if none is found."""
    from sentence_transformers.encoders import stanford_colbert
    from sentence_transformers.errors import ModelNotFoundError
    from sentence_transformers.storage import folder, resolve

    try:
        place = resolve.resolve(source, ORGANIZATIONS[kind])
    except ModelNotFoundError:
        return None
    config = folder.read_config(place)
    named = config.get("model_type")
    if named == stanford_colbert.PYLATE or stanford_colbert.is_pylate(config) or stanford_colbert.is_stanford(place):
        return Kind.late
    for other, class_name in CLASSES.items():
        if named == class_name:
            return other
    if place.path(folder.MODULES_FILE) is not None:
        return Kind.dense
    architectures = (place.json("config.json") or {}).get("architectures") or [""]
    return Kind.cross if str(architectures[0]).endswith("ForSequenceClassification") else kind


def load(name: str, loading: Loading, kind: Kind | None = None, *allowed: Kind, **settings: Any) -> Any:
    """The model of a name.

    Args:
        kind: which class loads it; default: found out.
        allowed: the kinds that the command can use; default: all.
        settings: further arguments of the class.
    """
    kind = kind or (allowed[0] if len(allowed) == 1 else kind_of(name, loading, *allowed))
    if allowed and kind not in allowed:
        raise usage_error(
            f"{name} is a {CLASSES[kind]}; this command takes {' or '.join(CLASSES[one] for one in allowed)}."
        )
    only_our_progress()
    return class_of(kind)(name, **loading.arguments() | settings)


def class_of(kind: Kind) -> Any:
    """The class of a kind of model."""
    if kind == Kind.sparse:
        from sentence_transformers import SparseEncoder

        return SparseEncoder
    if kind == Kind.cross:
        from sentence_transformers import CrossEncoder

        return CrossEncoder
    if kind == Kind.late:
        from sentence_transformers import MultiVectorEncoder

        return MultiVectorEncoder
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer


def side_arguments(model: WithPrompts, side: Side | None) -> dict[str, Any]:
    """What `encode_query` and `encode_document` hand to `encode`; {} for neither side."""
    from sentence_transformers.engine.prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS

    if side is None:
        return {}
    names = QUERY_PROMPTS if side == Side.query else DOCUMENT_PROMPTS
    return {"prompt_name": next((name for name in names if name in model.prompts), None), "task": str(side)}


def batching(batch_size: int | None) -> dict[str, Any]:
    """The batch size as an argument, if one is given."""
    return {} if batch_size is None else {"batch_size": batch_size}
