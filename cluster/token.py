"""The token that Ray's processes show each other (``RAY_AUTH_MODE=token``); no ray import here."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

MODE_VARIABLE = "RAY_AUTH_MODE"
TOKEN_VARIABLE = "RAY_AUTH_TOKEN"  # noqa: S105 - the name of a variable, not a token
PATH_VARIABLE = "RAY_AUTH_TOKEN_PATH"
_PRIVATE = stat.S_IRUSR | stat.S_IWUSR


def token_enabled(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether Ray would ask for a token: the mode may be set, and is ``token`` for us."""
    return environment.get(MODE_VARIABLE, "token").lower() == "token"


def token_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the file that Ray reads the token from when ``RAY_AUTH_TOKEN`` is not set."""
    named = environment.get(PATH_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"


def token_present(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether there is a token, in the environment or in its file."""
    if environment.get(TOKEN_VARIABLE):
        return True
    path = token_path(environment)
    return path.is_file() and path.stat().st_size > 0


def make_token(path: Path) -> bool:
    """Write a new token that only its owner can read, unless there is one; tell whether it did.

    Ray 2.60 makes a missing token itself, but readable by everyone on the machine.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    try:
        with os.fdopen(descriptor, "w") as sink:
            sink.write(secrets.token_hex(32))
        path.hardlink_to(partial)  # fails when another process was first: then theirs is used
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)
    return True


def exposed_mode(path: Path) -> str | None:
    """Return the mode of a token file that others can read, such as ``0644``, else None."""
    mode = stat.S_IMODE(path.stat().st_mode)
    return f"{mode:04o}" if mode & ~_PRIVATE else None
