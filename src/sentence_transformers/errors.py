"""What can go wrong, as a tree.

    SentenceTransformersError
    ├── InputError        (ValueError)        a text, argument or array the caller passed cannot be used
    ├── ModelFormatError  (ValueError)        a model folder is malformed, incomplete or unsafe
    │   └── UntrustedCodeError                it names code from outside this library
    ├── ModelNotFoundError (FileNotFoundError)   no place holds a model of that name
    ├── IndexFormatError  (ValueError)        a stored search index is malformed or incomplete
    ├── IndexNotFoundError (FileNotFoundError)   there is no search index in a folder
    ├── IndexLockedError  (RuntimeError)      another writer has a search index open
    ├── SearchEngineError (ConnectionError)   a search engine or database cannot be reached, or failed
    │   └── DatabaseWriteError                it failed while documents were written; `written` says how many are there
    ├── NotAFolderError   (NotADirectoryError)   a file was given where a model folder is expected
    ├── WorkerError       (RuntimeError)      a worker process failed or died
    ├── NonFiniteLossError (FloatingPointError)  a training loss became NaN or infinite
    ├── VersionRequirementError (ImportError) a model asks for package versions that are not installed
    └── MissingExtraError (ImportError)       an optional package is needed; the message has the pip command

Each class also derives from the built-in that a caller of such a function would expect, so `except ValueError` keeps
working. Messages say what was passed, what was expected and what to do.
"""

from __future__ import annotations


class SentenceTransformersError(Exception):
    """Root of all errors that this library raises on purpose."""


class InputError(SentenceTransformersError, ValueError):
    """An argument, text or array cannot be used."""


class ModelFormatError(SentenceTransformersError, ValueError):
    """A model folder is malformed, incomplete or points outside itself."""


class UntrustedCodeError(ModelFormatError):
    """A model folder names code from outside this library and `trust_remote_code` is not set."""


class ModelNotFoundError(SentenceTransformersError, FileNotFoundError):
    """A model name was found in none of the places that were tried."""


class IndexFormatError(SentenceTransformersError, ValueError):
    """A stored search index is malformed, incomplete or of a later version."""


class IndexNotFoundError(SentenceTransformersError, FileNotFoundError):
    """A folder holds no search index."""


class IndexLockedError(SentenceTransformersError, RuntimeError):
    """A search index is being written by someone else."""


class SearchEngineError(SentenceTransformersError, ConnectionError):
    """A search engine or database cannot be reached, or failed."""


class DatabaseWriteError(SearchEngineError):
    """A database failed while documents were written.

    Attributes:
        written: how many documents of the call it had confirmed.
    """

    def __init__(self, message: str, written: int = 0) -> None:
        super().__init__(message, written)
        self.written = written

    def __str__(self) -> str:
        return str(self.args[0])


class NotAFolderError(SentenceTransformersError, NotADirectoryError):
    """A file was given where the folder of a model is expected."""


class WorkerError(SentenceTransformersError, RuntimeError):
    """A worker process failed or died before it delivered its result."""


class NonFiniteLossError(SentenceTransformersError, FloatingPointError):
    """A training loss became NaN or infinite."""


class VersionRequirementError(SentenceTransformersError, ImportError):
    """A model asks for package versions that are not installed."""


class MissingExtraError(SentenceTransformersError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str | None, purpose: str) -> None:
        has_it = f" (this library's extra {extra!r} has it)" if extra else ""
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install '{package}'{has_it}"
        )
