"""What an input may be: the types of inputs, and which kind one is.

    "text"      a string, or a pair of strings
    "image"     a PIL image, an array of 3 axes, the path or URL of an image
    "audio"     an array of 1 or 2 axes, {"array": …, "sampling_rate": …}, the path or URL of a sound
    "video"     an array of 4 or 5 axes, {"array": …, "video_metadata": …}, the path or URL of a film
    "message"   {"role": …, "content": …}, or a list of them: a conversation

A dictionary {kind: input} is of the kinds that it names; of several at once the kind is their sorted tuple. The
modules of this package take texts and messages; modules of one's own take what they say in `modalities`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, NotRequired, TypeAlias, TypedDict
from urllib.parse import urlsplit

import numpy as np
from torch import Tensor

from sentence_transformers.backends.tasks import TASKS
from sentence_transformers.engine.inputs import is_conversation, is_message
from sentence_transformers.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Modality: TypeAlias = (
    Literal["text", "image", "audio", "video", "message"] | tuple[Literal["text", "image", "audio", "video"], ...]
)
MessageFormat: TypeAlias = Literal["auto", "structured", "flat"]
ProcessorArgName: TypeAlias = Literal["text", "images", "audio", "videos", "message"]


class AudioDict(TypedDict):
    """A sound and its rate."""

    array: np.ndarray | Tensor
    sampling_rate: int


class VideoDict(TypedDict):
    """A film and what is known of it."""

    array: Any
    video_metadata: dict[str, Any] | None


class MessageDict(TypedDict):
    """One message of a conversation."""

    role: str
    content: str | list[dict[str, Any]]


TextInput: TypeAlias = str
ImageInput: TypeAlias = "str | Image | np.ndarray | Tensor"
AudioInput: TypeAlias = str | np.ndarray | Tensor | AudioDict
VideoInput: TypeAlias = "str | np.ndarray | Tensor | VideoDict | list[ImageInput] | tuple[ImageInput, ...]"
MessageInput: TypeAlias = MessageDict | list[MessageDict]


class MultimodalInput(TypedDict, total=False):
    """Inputs of several kinds that belong together."""

    text: Any
    image: Any
    audio: Any
    video: Any


PairableInput: TypeAlias = "TextInput | ImageInput | AudioInput | VideoInput | MultimodalInput"
PairInput: TypeAlias = "tuple[PairableInput, PairableInput] | list[PairableInput]"
SingleInput: TypeAlias = "PairableInput | MessageInput"


class ProcessingKwargs(TypedDict, total=False):
    """Arguments of the tokenizer's or processor's call, by kind of input."""

    common: dict[str, Any]
    text: dict[str, Any]
    audio: dict[str, Any]
    image: dict[str, Any]
    video: dict[str, Any]
    chat_template: dict[str, Any]


class ModalityParams(TypedDict):
    """How a transformers model is called for a kind of input, and what of its output is used."""

    method: str
    method_output_name: str | list[Any] | None
    format: NotRequired[Literal["structured", "flat", "auto"]]


ModalityConfig: TypeAlias = dict[Modality, ModalityParams]


class QueryExpansionConfig(TypedDict):
    """Further tokens of queries; see `Transformer`."""

    strategy: Literal["fixed", "min"]
    attend: NotRequired[bool]
    token: NotRequired[str | None]
    length: NotRequired[int]


MODALITY_TO_PROCESSOR_ARG: dict[str, ProcessorArgName] = {
    "text": "text",
    "image": "images",
    "audio": "audio",
    "video": "videos",
    "message": "message",
}
MULTIMODAL_DICT_KEYS = frozenset({"text", "image", "audio", "video"})
ENDINGS = {  # kind -> endings of the names of its files; in the order in which they are tried
    "image": (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tiff", ".webp"),
    "video": (".mp4", ".avi", ".mov", ".wmv", ".flv", ".mkv"),
    "audio": (".mp3", ".wav", ".ogg", ".flac", ".aac"),
}
VIDEO_HOSTS = ("www.youtube.com", "youtube.com", "youtu.be", "m.youtube.com")
AXES = {1: "audio", 2: "audio", 3: "image", 4: "video", 5: "video"}  # number of axes of an array -> kind


def infer_modality(sample: object, supported_modalities: Sequence[Any] | None = None) -> Any:
    """The kind of one input.

    Args:
        supported_modalities: kinds that the model takes; the path or URL of another kind is text then.

    Raises:
        InputError: for what is of no kind.
    """
    if isinstance(sample, str):
        return kind_of_string(sample, supported_modalities)
    if isinstance(sample, (tuple, list)) and len(sample) == 2 and all(isinstance(half, str) for half in sample):
        return "text"
    if is_message(sample) or is_conversation(sample):
        return "message"
    if isinstance(sample, dict):
        return kind_of_dictionary(sample)
    if isinstance(sample, (np.ndarray, Tensor)):
        if sample.ndim in AXES:
            return AXES[sample.ndim]
        raise InputError(f"An array of {sample.ndim} axes is of no kind; sounds have 1 or 2, images 3, videos 4 or 5.")
    if any(base.__module__.startswith("PIL.") for base in type(sample).__mro__):
        return "image"
    if type(sample).__module__.startswith("torchcodec."):
        return "audio" if type(sample).__name__ == "AudioDecoder" else "video"
    raise InputError(
        f"An input of type {type(sample).__name__} is of no kind; give a string, a dictionary, a PIL image, a numpy "
        "array or a tensor."
    )


def kind_of_string(text: str, supported: Sequence[Any] | None) -> str:
    """The kind of file that a string names; "text" where it names none that is supported."""
    tests = {"image": is_image_url_or_path, "video": is_video_url_or_path, "audio": is_audio_url_or_path}
    return next(
        (kind for kind, names in tests.items() if (supported is None or kind in supported) and names(text)), "text"
    )


def kind_of_dictionary(sample: dict[str, Any]) -> str | tuple[str, ...]:
    """The kind of a dictionary that is no message."""
    if "array" in sample:
        for key, kind in (("sampling_rate", "audio"), ("video_metadata", "video")):
            if key in sample:
                return kind
        raise InputError("A dictionary with 'array' needs 'sampling_rate' (a sound) or 'video_metadata' (a video).")
    if unknown := sorted(map(str, sample.keys() - MULTIMODAL_DICT_KEYS)):
        raise InputError(
            f"The keys {unknown} of an input are no kinds; those are {sorted(MULTIMODAL_DICT_KEYS)}. 'sampling_rate' "
            "and 'video_metadata' stand beside 'array', in a dictionary of their own."
        )
    if not sample:
        raise InputError("An input is an empty dictionary.")
    return tuple(sorted(sample)) if len(sample) > 1 else next(iter(sample))


def infer_batch_modality(samples: Sequence[Any], supported_modalities: Sequence[Any] | None = None) -> Any:
    """The kind of all inputs; "message" if they are of several, "text" if there is none. See `infer_modality`."""
    kinds = {infer_modality(sample, supported_modalities) for sample in samples}
    if not kinds:
        return "text"
    return kinds.pop() if len(kinds) == 1 else "message"


def format_modality(modality: Modality) -> str:
    """A kind as text: "text", "text+image"."""
    return modality if isinstance(modality, str) else "+".join(modality)


def raise_unsupported_modality_error(
    inputs: Sequence[Any], modality: Modality, supported_modalities: Sequence[Any], source: str
) -> NoReturn:
    """Raise `InputError`: the inputs are of a kind that a model does not take.

    Args:
        inputs: of which the first is shown.
        source: what does not take it, as "SentenceTransformer".
    """
    raise InputError(
        f"Modality {format_modality(modality)!r} is not supported by this {source}. Supported modalities: "
        f"{', '.join(map(format_modality, supported_modalities))}. The first input is {next(iter(inputs), None)!r:.80}."
    )


def is_message_dict(value: object) -> bool:
    """Whether a value is one message of a conversation."""
    return is_message(value)


def is_image_url_or_path(text: str) -> bool:
    """Whether a string is the URL of an image, the path of an image that exists, or the image itself as data URI."""
    return text.startswith("data:image/") or names_file(text, ENDINGS["image"])


def is_audio_url_or_path(text: str) -> bool:
    """Whether a string is the URL of a sound or the path of one that exists."""
    return names_file(text, ENDINGS["audio"])


def is_video_url_or_path(text: str) -> bool:
    """Whether a string is the URL of a video or the path of one that exists."""
    if is_url(text) and host(text) in VIDEO_HOSTS:
        return True
    return names_file(text, ENDINGS["video"])


def is_url(text: str) -> bool:
    return text.startswith(("http://", "https://")) and " " not in text


def host(url: str) -> str | None:
    """The host of a URL; None if it cannot be parsed."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def names_file(text: str, endings: tuple[str, ...]) -> bool:
    """Whether a string is a URL whose path has one of the endings, or the path of such a file that exists."""
    if is_url(text):
        return host(text) is not None and urlsplit(text).path.lower().endswith(endings)
    try:
        return text.lower().endswith(endings) and Path(text).is_file()
    except (OSError, ValueError):  # longer than a path may be, or with a null character
        return False


# ---- what of a transformers model is used for a kind of input


def default_modality_config(task: str) -> dict[str, Any]:
    """Where the output of a model of a task is, for texts."""
    return {"text": {"method": "forward", "method_output_name": TASKS[task][1]}}


TRANSFORMER_TASK_DEFAULTS = {task: (default_modality_config(task), output) for task, (_, _, output) in TASKS.items()}


class AutoClasses(Mapping[str, Any]):
    """Task -> Auto class of transformers, which is imported when it is asked for."""

    def __getitem__(self, task: str) -> Any:
        import transformers

        return getattr(transformers, TASKS[task][0])

    def __iter__(self) -> Iterator[str]:
        return iter(TASKS)

    def __len__(self) -> int:
        return len(TASKS)


TRANSFORMER_TASK_TO_AUTO_MODEL = AutoClasses()


def check_modality_config(config: dict[str, Any] | None, output: str | None) -> None:
    """Raise `InputError` for a modality_config that does not say what comes out and under which name."""
    if config is None:
        return
    if output is None:
        raise InputError(
            "modality_config needs module_output_name beside it: the name of the output among the features, such as "
            '"token_embeddings" or "sentence_embedding".'
        )
    for modality, entry in config.items():
        if not isinstance(entry, dict) or not {"method", "method_output_name"} <= entry.keys():
            raise InputError(
                f"modality_config[{modality!r}] must be a dictionary with 'method' and 'method_output_name', "
                f"got {entry!r}."
            )
        if modality in ("text", "message") and entry["method"] != "forward":
            raise InputError(
                f"modality_config[{modality!r}] asks for the method {entry['method']!r} of the model; texts go "
                "through 'forward' here."
            )
        path = entry["method_output_name"]
        whole = isinstance(path, (list, tuple)) and bool(path) and all(type(step) in (str, int) for step in path)
        if modality in ("text", "message") and not (isinstance(path, str) or whole):
            raise InputError(
                f"modality_config[{modality!r}]['method_output_name'] is {path!r}; expected the name of an entry of "
                "the model's output, or a path of names and indices into it, as ['hidden_states', -2]."
            )
