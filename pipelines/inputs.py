"""What tells one version of an input from another, so that a resumed run finds out about a change.

A file is known by its checksum, a data set by the digest of the part that was read, a folder of
bundles by the names, sizes and times of its files.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.fpcb.dataset import DESCRIPTION, is_data_set

_PART, _FILE, _FOLDER = "part", "blake2b", "look"


def look_at_data_set(folder: str, part: str) -> dict[str, str]:
    """Return how the ``part`` of a data set looks now."""
    try:
        digest = Store(folder).read_json(DESCRIPTION)[part]["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        digest = "none"
    return {f"{folder}/{DESCRIPTION}": f"{_PART} {part} {digest}"}


def look_at_sources(sources: Iterable[str], part: str) -> dict[str, str]:
    """Return how data sets (by their ``part``) and folders of bundles look now."""
    looks: dict[str, str] = {}
    for source in sources:
        looks |= look_at_data_set(source, part) if is_data_set(source) else look_at_folder(source)
    return looks


def look_at_file(path: str | None) -> dict[str, str]:
    """Return the checksum of a file, by its name; nothing for none."""
    if path is None:
        return {}
    folder, _, name = path.rpartition("/")
    try:
        return {path: f"{_FILE} {Store(folder or '.').checksum(name)}"}
    except OSError:
        return {path: f"{_FILE} none"}


def look_of(digest: bytes) -> str:
    """Return what `look_at_file` says of a file with this checksum."""
    return f"{_FILE} {digest.hex()}"


def look_at_folder(path: str) -> dict[str, str]:
    """Return a hash of the names, sizes and times of all files below a folder."""
    digest = hashlib.blake2b(digest_size=16)
    for parent, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            stat = (Path(parent) / name).stat()
            where = os.path.relpath(Path(parent) / name, path)
            digest.update(f"{where}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return {path: f"{_FOLDER} {digest.hexdigest()}"}


def require_unchanged(inputs: Mapping[str, str], otherwise: str) -> None:
    """Make sure that every input looks as it did.

    Raises
    ------
    InputError
        Naming the first that does not; ``otherwise`` says what to do.
    """
    for name, before in inputs.items():
        kind, *more = before.split()
        if kind == _PART:
            now = look_at_data_set(name.removesuffix(f"/{DESCRIPTION}"), more[0])
        else:
            now = look_at_folder(name) if kind == _FOLDER else look_at_file(name)
        if now[name] != before:
            gone = now[name].endswith(" none")
            what = "input is gone" if gone else "input has changed since the run was started"
            raise InputError(name, what, fix=otherwise)
