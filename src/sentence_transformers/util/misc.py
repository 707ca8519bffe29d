"""Names of things, classes by name, and small conveniences of the evaluators."""

from __future__ import annotations

import csv
import functools
import importlib
import inspect
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from sentence_transformers._deprecation import legacy
from sentence_transformers.errors import InputError, ModelFormatError, UntrustedCodeError
from sentence_transformers.util.atomic import replacing

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

logger = logging.getLogger(__name__)

OWN_CLASSES = "sentence_transformers."
P = ParamSpec("P")
R = TypeVar("R")


def fullname(obj: object) -> str:
    """Dotted path of a class, or of the class of an object: "torch.nn.modules.linear.Linear"; "int" for built-ins."""
    cls = obj if inspect.isclass(obj) else type(obj)
    return cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"


def similarity_fct_name(similarity_fct: Callable[..., Any]) -> str:
    """Name of a function for logs and settings: "cos_sim", "maxsim(chunk_elements=3)" of a partial, or its class."""
    if isinstance(similarity_fct, functools.partial):
        settings = ", ".join(f"{key}={value!r}" for key, value in similarity_fct.keywords.items())
        name = similarity_fct_name(similarity_fct.func)
        return f"{name}({settings})" if settings else name
    if hasattr(similarity_fct, "get_config_dict"):
        settings = ", ".join(f"{key}={value!r}" for key, value in similarity_fct.get_config_dict().items())
        return f"{type(similarity_fct).__name__}({settings})"
    return getattr(similarity_fct, "__name__", None) or type(similarity_fct).__name__


def import_from_string(dotted_path: str) -> Any:
    """The class or function that a dotted path names, e.g. "torch.nn.GELU".

    The module is imported the ordinary way, so older import paths of this library work too.

    Raises:
        ImportError: if there is no such module, or it has no such class or function.
    """
    module_path, _, name = dotted_path.rpartition(".")
    if not module_path:
        raise ImportError(f'{dotted_path!r} is not a dotted path to a class, such as "torch.nn.GELU".')
    found = getattr(importlib.import_module(module_path), name, None)
    if isinstance(found, ModuleType):  # "....models.Pooling" was a module once and is a class now
        found = getattr(found, name, None)
    if found is None:
        raise ImportError(f"The module {module_path!r} has no class or function {name!r}.")
    return found


def import_module_class(
    class_ref: str,
    model_name_or_path: str | None = None,
    *,
    trust_remote_code: bool = False,
    revision: str | None = None,
    code_revision: str | None = None,
    token: bool | str | None = None,
    cache_folder: str | None = None,
    local_files_only: bool = False,
) -> type:
    """The class of a module that a model folder names.

    Args:
        class_ref: "sentence_transformers.….Pooling", "file.Class" for a file of the model, "owner/repo--file.Class"
            for one of another model, or the dotted path of an installed class.
        model_name_or_path: the model that names it. None: the caller names the class himself and is trusted.
        trust_remote_code: allow classes from outside this library.
        revision, code_revision, token, cache_folder, local_files_only: where to fetch a file of code from.

    Raises:
        UntrustedCodeError: if the class is not one of this library and `trust_remote_code` is not set.
        ModelFormatError: if the name does not lead to a class.
        ImportError: if there is no such class.
    """
    own = class_ref.startswith(OWN_CLASSES)
    if not own and model_name_or_path is not None:
        if not trust_remote_code:
            raise UntrustedCodeError(
                f"The model {model_name_or_path} names the class {class_ref!r}, which is not part of this library. "
                "Importing it runs code that somebody else wrote. Read that code first; "
                "if you trust it, pass trust_remote_code=True."
            )
        hub = {"token": token, "cache_dir": cache_folder, "local_files_only": local_files_only}
        found = _class_from_model(class_ref, model_name_or_path, revision=revision, code_revision=code_revision, **hub)
    else:
        found = import_from_string(class_ref)
    if not inspect.isclass(found):
        raise ModelFormatError(f"{class_ref!r} in {model_name_or_path} is not a class but {found!r}.")
    return found


def _class_from_model(class_ref: str, model_name_or_path: str, **hub_kwargs: Any) -> Any:
    """A class from a file of the model; if the model has no such file, from an installed package."""
    repository, _, dotted = class_ref.rpartition("--")
    if dotted.count(".") == 1:
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        try:
            return get_class_from_dynamic_module(class_ref, model_name_or_path, **hub_kwargs)
        except OSError:
            if repository:
                raise
        except AttributeError as error:
            raise ImportError(f"The model {model_name_or_path} has no class {class_ref!r}.") from error
    return import_from_string(class_ref)


def check_teacher_targets(
    teacher_probabilities: Tensor, teacher_logits: Tensor, teacher_temperature: float, loss_name: str
) -> None:
    """Look at the targets of a distillation loss for what would spoil training.

    Args:
        teacher_probabilities: (B, N), softmax(teacher_logits / teacher_temperature).
        teacher_logits: (B, N), what the teacher said about the N candidates of each query; -inf for padding.
        teacher_temperature: what the logits were divided by.
        loss_name: for messages.

    Raises:
        InputError: if a logit is NaN. Candidates whose probability became exactly 0 are only logged, once a loss.
    """
    if teacher_logits.isnan().any():
        raise InputError(
            f"{loss_name}: a teacher score is NaN and would make the loss and all weights NaN. Check the scores."
        )
    finite = teacher_logits.isfinite()
    lost = int(((teacher_probabilities == 0) & finite).sum())
    if not lost:
        return
    top = teacher_logits.masked_fill(~finite, float("-inf")).amax(-1)
    low = teacher_logits.masked_fill(~finite, float("inf")).amin(-1)
    spread = float((top - low).nan_to_num(0, 0, 0).max())
    _log_underflow_once(loss_name, teacher_temperature, lost, int(finite.sum()), spread)


_underflow_told: set[tuple[str, float]] = set()


def _log_underflow_once(loss_name: str, temperature: float, lost: int, total: int, spread: float) -> None:
    if (loss_name, temperature) in _underflow_told:
        return
    _underflow_told.add((loss_name, temperature))
    logger.warning(
        "%s: at teacher_temperature=%s the probability of %d of %d candidates is exactly 0, so they teach nothing. "
        "Scores of one query lie up to %.4g apart; float32 holds about 100 temperatures: raise it above %.4g.",
        *(loss_name, temperature, lost, total, spread, spread / 100),
    )


@contextmanager
def disable_datasets_caching() -> Iterator[None]:
    """No cache files from the datasets library inside the block; afterwards as before."""
    import datasets

    was_enabled = datasets.is_caching_enabled()
    datasets.disable_caching()
    try:
        yield
    finally:
        if was_enabled:
            datasets.enable_caching()


@contextmanager
def disable_logging(highest_level: int = logging.CRITICAL) -> Iterator[None]:
    """No log records up to `highest_level` inside the block; afterwards as before."""
    before = logging.root.manager.disable
    logging.disable(highest_level)
    try:
        yield
    finally:
        logging.disable(before)


def column_values(dataset: Dataset, column: str) -> list[Any]:
    """A column of a `datasets.Dataset` as a list, read at once."""
    return dataset.with_format(None).select_columns([column])[:][column]


def append_to_last_row(csv_path: str | os.PathLike[str], additional_data: list[Any]) -> bool:
    """Add cells to the end of the last row of a CSV file with a header.

    Returns:
        Whether there was a row; if not, the file is left as it is.
    """
    with Path(csv_path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if len(rows) < 2:
        return False
    rows[-1].extend(additional_data)
    with replacing(csv_path) as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return True


def save_to_hub_args_decorator(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: a `save_to_hub` method also takes `repo_id` under its older name `repo_name`, and `private` in the
    third place, where it once stood.
    """

    @functools.wraps(function)
    def method(*args, **kwargs):
        if len(args) > 3 and isinstance(args[3], bool):
            logger.warning("save_to_hub: give private by its name; the third argument is the token now.")
            kwargs["private"], args = args[3], (*args[:3], None, *args[4:])
        return function(*args, **kwargs)

    return legacy(repo_name="repo_id")(method)


ORIGINAL_TRANSFORMER_MODELS = """
    albert-base-v1 albert-base-v2 albert-large-v1 albert-large-v2 albert-xlarge-v1 albert-xlarge-v2
    albert-xxlarge-v1 albert-xxlarge-v2 bert-base-cased-finetuned-mrpc bert-base-cased bert-base-chinese
    bert-base-german-cased bert-base-german-dbmdz-cased bert-base-german-dbmdz-uncased
    bert-base-multilingual-cased bert-base-multilingual-uncased bert-base-uncased
    bert-large-cased-whole-word-masking-finetuned-squad bert-large-cased-whole-word-masking bert-large-cased
    bert-large-uncased-whole-word-masking-finetuned-squad bert-large-uncased-whole-word-masking
    bert-large-uncased camembert-base ctrl distilbert-base-cased-distilled-squad distilbert-base-cased
    distilbert-base-german-cased distilbert-base-multilingual-cased distilbert-base-uncased-distilled-squad
    distilbert-base-uncased-finetuned-sst-2-english distilbert-base-uncased distilgpt2 distilroberta-base
    gpt2-large gpt2-medium gpt2-xl gpt2 openai-gpt roberta-base-openai-detector roberta-base
    roberta-large-mnli roberta-large-openai-detector roberta-large t5-11b t5-3b t5-base t5-large t5-small
    transfo-xl-wt103 xlm-clm-ende-1024 xlm-clm-enfr-1024 xlm-mlm-100-1280 xlm-mlm-17-1280 xlm-mlm-en-2048
    xlm-mlm-ende-1024 xlm-mlm-enfr-1024 xlm-mlm-enro-1024 xlm-mlm-tlm-xnli15-1024 xlm-mlm-xnli15-1024
    xlm-roberta-base xlm-roberta-large-finetuned-conll02-dutch xlm-roberta-large-finetuned-conll02-spanish
    xlm-roberta-large-finetuned-conll03-english xlm-roberta-large-finetuned-conll03-german xlm-roberta-large
    xlnet-base-cased xlnet-large-cased
""".split()  # noqa: SIM905  a list literal would be 68 lines
"""Models from before the hub had organisations: their names are used as they are."""
