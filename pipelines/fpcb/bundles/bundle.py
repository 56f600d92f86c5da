"""One panel bundle: the folder that the field's tracker writes for a panel.

::

    frame_00000.txt …   header ``# x,y,index``, then x,y,index a line: whole pixels, index from 1
    fps.txt             one number
    metadata.json       optional: label, scenario, split, crack_frame, meters_per_pixel, …

Other files (``frame_metrics.csv``) are left alone.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from cluster.errors import InputError
from pipelines.fpcb.bundles.frame_text import HEADER, BadBundle, parse_frames, shown
from pipelines.fpcb.bundles.labels import PanelLabels, parse_metadata

# The fewest that second differences in time and curvature along the board exist for.
MIN_FRAMES = 3
MIN_POINTS = 3
_LARGEST_FILE_BYTES = 1 << 24  # a million points a frame; anything larger is no frame
_READ_BYTES = 1 << 16
_PARTIAL = ".partial-"


@dataclass(frozen=True, eq=False)
class Bundle:
    """What a bundle holds.

    Attributes
    ----------
    points : ndarray (2, n_frames, n_points), int16, px
    fps : float, 1/s
    labels : PanelLabels
    """

    points: npt.NDArray[np.int16]
    fps: float
    labels: PanelLabels


def is_frame(name: str) -> bool:
    """Tell whether a file of this name is meant as a frame."""
    return name.startswith("frame_") and name.endswith(".txt")


def is_own(name: str) -> bool:
    """Tell whether a file of this name belongs to a bundle as we write it."""
    return is_frame(name) or name in ("fps.txt", "metadata.json")


def read_bundle(folder: str | Path, fps: float | None = None) -> Bundle:
    """Read one bundle.

    Parameters
    ----------
    folder : path
    fps : float, optional, 1/s
        Taken when the bundle has no ``fps.txt``.

    Raises
    ------
    BadBundle
        At whatever keeps the bundle from being used, with file, line and reason.
    """
    base = str(folder)
    try:
        with os.scandir(base) as entries:
            files = {entry.name: entry for entry in entries}
    except OSError as error:
        raise _unreadable(base, error) from error
    names = sorted(filter(is_frame, files))
    if not names:
        raise BadBundle(base, None, "no frames")
    for number, name in enumerate(names):
        if name != (expected := f"frame_{number:05d}.txt"):
            raise BadBundle(f"{base}/{expected}", None, "frame is missing; the next file is", name)
    if len(names) < MIN_FRAMES:
        raise BadBundle(base, None, f"fewer than {MIN_FRAMES} frames", len(names))

    points = parse_frames([_read(files[n]) for n in names], [f"{base}/{n}" for n in names])
    if points.shape[2] < MIN_POINTS:
        reason = f"fewer than {MIN_POINTS} points"
        raise BadBundle(f"{base}/{names[0]}", None, reason, points.shape[2])
    fps = _fps(files.get("fps.txt"), f"{base}/fps.txt", fps)
    labels = PanelLabels()
    if "metadata.json" in files:
        data = _read(files["metadata.json"])
        labels = parse_metadata(data, f"{base}/metadata.json", len(names))
    return Bundle(points, fps, labels)


def write_bundle(
    folder: str | Path,
    points: npt.NDArray[np.int16],
    fps: float,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write one bundle, whole or not at all; one that is there already is replaced.

    Parameters
    ----------
    folder : path
    points : ndarray (2, n_frames, n_points), int16, px
    fps : float, 1/s
    metadata : mapping, optional
        For ``metadata.json``; no file is written when empty.

    Raises
    ------
    InputError
        When ``folder`` holds other things than a bundle, or cannot be written.
    """
    target = Path(folder)
    partial = target.with_name(f"{_PARTIAL}{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for number, text in enumerate(_frame_texts(points)):
            (partial / f"frame_{number:05d}.txt").write_bytes(text)
        (partial / "fps.txt").write_text(f"{float(fps)!r}\n")
        if metadata:
            known = json.dumps(dict(metadata), indent=2, default=str)
            (partial / "metadata.json").write_text(f"{known}\n")
        _clear(target)
        partial.rename(target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        fix = "Make room, or name another folder."
        raise InputError(str(target), "cannot be written", got=error.strerror, fix=fix) from error


def _clear(target: Path) -> None:
    """Remove a bundle that we could have written; OSError when anything else is in the folder."""
    if not target.is_dir():
        return
    for file in target.iterdir():
        if is_own(file.name):
            file.unlink()
    target.rmdir()


def _frame_texts(points: npt.NDArray[np.int16]) -> list[bytes]:
    """Return the text of each frame: all rows are formatted at once, then cut."""
    _, n_frames, n_points = points.shape
    index = np.tile(np.arange(1, n_points + 1, dtype=np.int32), n_frames)
    columns = [np.ascontiguousarray(points[0]).ravel(), np.ascontiguousarray(points[1]).ravel()]
    sink = pa.BufferOutputStream()
    options = pa.csv.WriteOptions(include_header=False)
    pa.csv.write_csv(pa.table([*columns, index], names=["x", "y", "index"]), sink, options)
    rows = sink.getvalue().to_pybytes()
    ends = np.flatnonzero(np.frombuffer(rows, np.uint8) == ord("\n"))[n_points - 1 :: n_points] + 1
    starts = [0, *ends[:-1].tolist()]
    return [HEADER + rows[a:b] for a, b in zip(starts, ends.tolist(), strict=True)]


def _fps(entry: os.DirEntry[str] | None, file: str, default: float | None) -> float:
    if entry is None:
        if default is None:
            raise BadBundle(file, None, "fps.txt is missing, and no --fps given")
        return default
    data = _read(entry)
    text = shown(data.strip())
    try:
        fps = float(data.decode("ascii").replace("_", "?"))  # float() takes 3_0 for 30
    except ValueError:
        raise BadBundle(file, 1, "frames per second: not one number", text) from None
    if not (math.isfinite(fps) and fps > 0):
        raise BadBundle(file, 1, "frames per second: not a positive number", text)
    return fps


def _read(entry: os.DirEntry[str]) -> bytes:
    """Return a file's bytes; never of one outside the bundle, nor of a pipe, which would hang."""
    path = entry.path
    try:
        if entry.is_symlink():
            inside = Path(path).resolve().is_relative_to(Path(path).parent.resolve())
            if not inside:
                raise BadBundle(path, None, "a link out of the bundle", Path(path).readlink())
        if not entry.is_file():
            raise BadBundle(path, None, "not a file")
        data = _content(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise _unreadable(path, error) from error
    if len(data) > _LARGEST_FILE_BYTES:
        raise BadBundle(path, None, f"larger than {_LARGEST_FILE_BYTES} bytes")
    return data


def _content(path: str) -> bytes:
    """Return a file's bytes, of one that is too large its beginning; few calls, for many files."""
    file = os.open(path, os.O_RDONLY)
    try:
        data = os.read(file, _READ_BYTES)
        while len(data) <= _LARGEST_FILE_BYTES and (more := os.read(file, _READ_BYTES)):
            data += more
    finally:
        os.close(file)
    return data


def _unreadable(path: str, error: Exception) -> BadBundle:
    return BadBundle(path, None, "cannot be read", getattr(error, "strerror", None) or error)
