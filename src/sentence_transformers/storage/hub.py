"""Publishing a model on the hub."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sentence_transformers.storage.saving import complete

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from sentence_transformers.encoders.base import BaseModel


logger = logging.getLogger(__name__)


class Upload(NamedTuple):
    """Where and how a model is published.

    Attributes:
        repo_id: "owner/name", or "name" for the token's owner.
        private: visibility of a new repository; None takes the owner's default.
        exist_ok: whether an existing repository may be written to.
        revision: branch; made if it does not exist.
        create_pr: open a pull request instead of committing.
        replace_model_card: whether an existing README.md is overwritten.
    """

    repo_id: str
    token: str | None = None
    private: bool | None = None
    commit_message: str | None = None
    exist_ok: bool = False
    revision: str | None = None
    create_pr: bool = False
    replace_model_card: bool = False


def push(
    model: BaseModel,
    upload: Upload,
    local_model_path: str | None,
    safe_serialization: bool,
    train_datasets: list[str] | None,
) -> str:
    """Upload a model, or a folder that holds one.

    Returns:
        Address of the commit or pull request.
    """
    from huggingface_hub import HfApi

    if local_model_path is not None:
        complete(local_model_path)
    api = HfApi(token=upload.token, library_name="sentence-transformers")
    exist_ok = upload.exist_ok or upload.create_pr
    url = api.create_repo(upload.repo_id, private=upload.private, repo_type=None, exist_ok=exist_ok)
    repo_id = url.repo_id
    if upload.revision is not None:
        api.create_branch(repo_id, branch=upload.revision, exist_ok=True)
    model.model_card_data.set_model_id(repo_id)
    arguments: dict[str, Any] = {
        "repo_id": repo_id,
        "commit_message": upload.commit_message or f"Add new {type(model).__name__} model",
        "commit_description": description(model, repo_id) if upload.create_pr else None,
        "revision": upload.revision,
        "create_pr": upload.create_pr,
    }
    if local_model_path is not None:
        commit = api.upload_folder(folder_path=local_model_path, **arguments)
    else:
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(
                folder,
                model_name=repo_id,
                create_model_card=not exist_ok or upload.replace_model_card or not has_card(api, upload, repo_id),
                train_datasets=train_datasets,
                safe_serialization=safe_serialization,
            )
            commit = api.upload_folder(folder_path=str(Path(folder)), **arguments)
    return commit.pr_url if upload.create_pr else commit.commit_url


def has_card(api: HfApi, upload: Upload, repo_id: str) -> bool:
    """Whether a repository that was there before may have a README.md."""
    try:
        return bool(api.file_exists(repo_id, "README.md", revision=upload.revision))
    except Exception as error:
        logger.warning(
            "Whether %s has a README.md cannot be seen (%s), so no model card is uploaded; replace_model_card=True "
            "uploads one.",
            repo_id,
            error,
        )
        return True


def description(model: BaseModel, repo_id: str) -> str:
    """What a pull request is for, and how to try it."""
    kind = type(model).__name__
    calls = type(model).model_card_data_class.TRIAL
    return f"""Hello!

This pull request adds files with which Sentence Transformers loads this model as a {kind}.

## Full Model Architecture
```
{model}
```

## Testing this pull request
Load the model from this pull request, before it is merged, by its `revision`:
```python
from sentence_transformers import {kind}

pr_number = 2  # the number of this pull request
model = {kind}(
    "{repo_id}",
    revision=f"refs/pr/{{pr_number}}",
    backend="{model.get_backend()}",
)

{calls}
```

*Written by `push_to_hub` of Sentence Transformers.*
"""
