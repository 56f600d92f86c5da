"""Stable hashes of what determines a result: configuration, inputs and code."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence, Set
from pathlib import PurePath
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

_DIGEST_BYTES = 8


def fingerprint(*parts: Any) -> str:
    """Hash ``parts`` to 16 hexadecimal digits, equal in every process and on every machine.

    Parameters
    ----------
    *parts : object
        JSON-able values, dataclasses, enums, dates, paths, bytes, numpy arrays and scalars, and
        mappings, sequences or sets of these. A module, class or function contributes its source
        text, so that a change of code makes old results stale. Tuples and lists are equal.

    Raises
    ------
    TypeError
        For anything else: a ``repr`` may hold an address, and would differ in each process.
    """
    text = json.dumps([_canonical(part) for part in parts], sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _canonical(part: Any) -> Any:
    """Turn ``part`` into lists, dicts with text keys, and JSON scalars, with types told apart."""
    match part:
        case enum.Enum():
            return {"enum": f"{type(part).__qualname__}.{part.name}"}
        case None | bool() | int() | float() | str():
            return part
        case bytes() | bytearray() | memoryview():
            return {"bytes": _digest(bytes(part))}
        case PurePath():
            return {"path": part.as_posix()}
        case datetime.date() | datetime.time():
            return {"date": part.isoformat()}
        case datetime.timedelta():
            return {"seconds": part.total_seconds()}
        case ModuleType() | FunctionType() | type():
            return {"source": part.__name__, "text": _digest(inspect.getsource(part).encode())}
        case np.generic():
            return _canonical(part.item())
        case np.ndarray():
            return _array(part)
        case Mapping():
            pairs = [[_canonical(key), _canonical(value)] for key, value in part.items()]
            return {"map": sorted(pairs, key=lambda pair: json.dumps(pair[0], sort_keys=True))}
        case Set():
            return {"set": sorted(json.dumps(_canonical(item), sort_keys=True) for item in part)}
        case Sequence():
            return [_canonical(item) for item in part]
    if dataclasses.is_dataclass(part):
        fields = [[f.name, _canonical(getattr(part, f.name))] for f in dataclasses.fields(part)]
        return {"dataclass": type(part).__qualname__, "fields": fields}
    raise TypeError(f"fingerprint: cannot hash a {type(part).__name__} reproducibly: {part!r}")


def _array(array: np.ndarray) -> Any:
    if array.dtype.hasobject:
        return {"array": array.shape, "items": [_canonical(item) for item in array.ravel()]}
    layout = f"{array.dtype.str}{array.shape}".encode()
    return {"array": _digest(layout + np.ascontiguousarray(array).tobytes())}


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
