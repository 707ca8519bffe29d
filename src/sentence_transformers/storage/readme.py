"""README.md of a model folder: which text it gets when a model is saved.

    the model, since it was loaded      README.md in the folder                    what is written
    ------------------------------      ---------------------------------------    ------------------------------------
    unchanged                           none, or a card of this library's           the card that the model came with
    unchanged                           anything else                               nothing: it stays
    trained, or its card data changed   none, or a card of this library's           a new card
    trained, or its card data changed   anything else                               its text, with the new metadata

A card of this library's ends in a line with the checksum of what is before it. Once anything in it was changed it is
the user's, like every other README.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sentence_transformers.storage.model_card import generate_model_card
from sentence_transformers.storage.saving import MODULES_FILE
from sentence_transformers.storage.training_report import CURVE_FILE, write_curve
from sentence_transformers.util.atomic import replacing

if TYPE_CHECKING:
    from sentence_transformers.encoders.base import BaseModel

logger = logging.getLogger(__name__)

README = "README.md"
MARK = "\n<!-- Written by Sentence Transformers; changed, it is kept when a model is saved over it. {} -->\n"
MARKED = re.compile(r"(?s)(.*)" + re.escape(MARK).replace(r"\{\}", "([0-9a-f]{16})"))
HEADER = re.compile(r"(?s)\A\ufeff?\s*---[ \t]*\r?\n(.*?\r?\n)?---[ \t]*(?=\r?\n|\Z)")
PLACEHOLDER = re.compile(r"\b(sentence_transformers|cross_encoder|sparse_encoder|multi_vector_encoder)_model_id\b")
RUN_TAG = re.compile(r"(dataset_size|loss):")
KEPT_KEYS = ("pipeline_tag", "library_name", "base_model")  # of the user's, where they are there


def write_card(
    model: BaseModel, fresh: Path, target: Path, model_name: str | None, train_datasets: list[str] | None
) -> None:
    """Write a model's README.md, if one has to be written, into `fresh`, whose files are to go into `target`."""
    text = card_for(model, target, model_name, train_datasets)
    if text is not None:
        write(fresh / README, text)
        write_picture(model, text, fresh)


def replace_card(model: BaseModel, folder: Path) -> None:
    """Write a model's README.md into a folder, as saving the model there would."""
    folder.mkdir(parents=True, exist_ok=True)
    text = card_for(model, folder)
    if text is not None:
        with replacing(folder / README) as fresh:
            write(fresh, text)
        write_picture(model, text, folder)


def write_picture(model: BaseModel, text: str, folder: Path) -> None:
    """Put the training curve that a card shows beside it."""
    if CURVE_FILE not in text or write_curve(model.model_card_data, folder) or model.came_from is None:
        return
    kept = model.came_from / CURVE_FILE
    if kept.is_file() and kept.resolve() != (folder / CURVE_FILE).resolve():
        shutil.copyfile(kept, folder / CURVE_FILE)


def card_for(
    model: BaseModel, folder: Path, model_name: str | None = None, train_datasets: list[str] | None = None
) -> str | None:
    """The text that README.md in `folder` is to have; None if it stays as it is, or is not there."""
    data = model.model_card_data
    there, own = read(folder), own_card(model)
    elsewhere = bool(own is not None and model.came_from and model.came_from.resolve() != folder.resolve())
    trained = data.training_logs or data.all_hyperparameters
    if not (trained or train_datasets or data.is_changed()):
        text = there if there is not None and not is_generated(there) else own
        if there is not None and own is not None and text == there != own:
            logger.warning("%s is not of this model, but kept: remove it to get the model's card.", folder / README)
        if text is not None:
            text = named(text, model_name or data.model_id)
            return None if text == there else text
    text = generate_model_card(model, model_name, train_datasets)
    if there is not None and not is_generated(there) and not (elsewhere and there == own):
        return with_metadata(there, text, folder / README)
    return marked(text)


def own_card(model: BaseModel) -> str | None:
    """Text of the README that a model came with; that of a plain transformers model is not its own."""
    folder = model.came_from
    return read(folder) if folder is not None and (folder / MODULES_FILE).is_file() else None


def named(text: str, model_name: str | None) -> str:
    """A card whose code loads the model by its name, if it has none yet."""
    if model_name is None or not PLACEHOLDER.search(text):
        return text
    card = MARKED.fullmatch(text) if is_generated(text) else None
    changed = PLACEHOLDER.sub(lambda found: model_name, card[1] if card else text)
    return marked(changed) if card else changed


def marked(text: str) -> str:
    return text + MARK.format(checksum(text))


def is_generated(text: str) -> bool:
    """Whether a README is as this library wrote it."""
    found = MARKED.fullmatch(text)
    return found is not None and found[2] == checksum(found[1])


def checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def with_metadata(text: str, card: str, file: Path) -> str | None:
    """A README with the metadata of another card added to its own; None if its own cannot be read."""
    import yaml
    from huggingface_hub.repocard_data import yaml_dump

    old, new = HEADER.match(text), HEADER.match(card)
    assert new is not None
    try:
        known = yaml.safe_load(old[1] or "") if old else {}
    except yaml.YAMLError as error:
        known = error
    if not isinstance(known, dict | None):
        logger.warning("%s is kept as it is: its metadata, between the lines '---', is not a YAML mapping.", file)
        return None
    known = known or {}
    added = yaml.safe_load(new[1])
    tags = known.get("tags") or []
    tags = [tag for tag in ([tags] if isinstance(tags, str) else tags) if not RUN_TAG.match(str(tag))]
    added["tags"] = list(dict.fromkeys(tags + added.get("tags", [])))
    merged = known | added | {key: known[key] for key in KEPT_KEYS if known.get(key)}
    logger.info("%s is the user's: its text is kept, its metadata is updated.", file)
    header = yaml_dump(merged, sort_keys=False).strip()
    return f"---\n{header}\n---" + (text[old.end() :] if old else f"\n\n{text}")


def read(folder: Path | None) -> str | None:
    """Text of the README in a folder, byte for byte; None if there is none."""
    if folder is None or not (folder / README).is_file():
        return None
    return (folder / README).read_bytes().decode("utf-8", "surrogateescape")


def write(file: Path, text: str) -> None:
    """Write what `read` gives."""
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
