"""Many panel bundles: found below folders, read into rows of panels, and written from them.

A bundle that cannot be used becomes a reject, with file, line and reason; the others go on.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from cluster.errors import InputError
from pipelines.fpcb.bundles.bundle import Bundle, is_frame, is_own, read_bundle, write_bundle
from pipelines.fpcb.bundles.frame_text import BadBundle, shown
from pipelines.fpcb.bundles.labels import LABEL_FIELDS, LabelFile
from pipelines.fpcb.panel_table import panel_table, to_batches
from pipelines.fpcb.population import SPLITS


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """What bundles do not say themselves."""

    labels: str | None = field(
        default=None,
        metadata={"help": "CSV of labels by bundle: name,label[,scenario,split]; label 0 or 1."},
    )
    fps: float | None = field(
        default=None, metadata={"help": "Frames per second of bundles without fps.txt."}
    )
    metres_per_pixel: float | None = field(
        default=None,
        metadata={"help": "Metres per pixel of bundles whose metadata.json does not say."},
    )
    assign_splits: bool = field(
        default=False,
        metadata={
            "help": "Give bundles without a split one that depends on their name alone: "
            "70 % train, 15 % val, 15 % test."
        },
    )

    def __post_init__(self) -> None:
        for option in ("fps", "metres_per_pixel"):
            value = getattr(self, option)
            if value is not None and not (math.isfinite(value) and value > 0):
                flag = f"--{option.replace('_', '-')}"
                raise InputError(flag, "not usable", "a positive number", value, "Pass another.")


class FoundBundle(NamedTuple):
    """A folder that is meant as a bundle."""

    number: int
    """Its place among all that were found, from 0: the panel's number."""
    name: str
    """Its path below the folder that was given, with ``/``."""
    folder: str


class Reject(NamedTuple):
    """A bundle that was left out, and why."""

    bundle: str
    file: str
    line: int | None
    """From 1, the header counted; None where it is about the whole file."""
    reason: str
    value: str

    @classmethod
    def of(cls, bundle: str, bad: BadBundle) -> Reject:
        """Return the reject that ``bad`` stands for."""
        value = "" if bad.value is None else shown(bad.value)
        return cls(_printable(bundle), _printable(bad.file), bad.line, bad.reason, value)


REJECT_FIELDS = pa.schema(
    [
        ("bundle", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("reason", pa.string()),
        ("value", pa.string()),
    ]
)


def rejects_table(rejects: Sequence[Reject]) -> pa.Table:
    """Return rejects as a table (bundle, file, line, reason, value)."""
    return pa.Table.from_pylist([reject._asdict() for reject in rejects], REJECT_FIELDS)


def find_bundles(folders: Sequence[str]) -> tuple[list[FoundBundle], list[Reject]]:
    """Find the bundles in and below ``folders``, in order of the folders, then of the names.

    A folder counts as a bundle when it has frames, or when it has nothing below it but is empty
    or has ``fps.txt`` or ``metadata.json``. Hidden folders are left alone. A folder met twice is
    taken once.

    Returns
    -------
    list of FoundBundle
    list of Reject
        Folders that cannot be listed, links to folders, and names that are there twice.

    Raises
    ------
    InputError
        When a folder does not exist, or there is no bundle below it.
    """
    named: dict[str, str] = {}
    rejects: list[Reject] = []
    met: set[str] = set()
    for top in folders:
        if not top.strip() or not Path(top).is_dir():
            raise InputError(top or "DIR", "no such folder", fix="Name a folder of bundles.")
        any_here = False
        for folder, bad in _walk(top):
            any_here = True
            base = Path(top).resolve().name
            name = base if folder == top else Path(folder).relative_to(top).as_posix()
            real = os.path.realpath(folder)
            if bad is None and real in met:
                continue
            if bad is None and not _is_text(name):
                bad = BadBundle(folder, None, "the folder's name is not UTF-8")
            if bad is None and name in named:
                bad = BadBundle(folder, None, "name twice, first in", named[name])
            if bad is not None:
                rejects.append(Reject.of(name, bad))
                continue
            met.add(real)
            named[name] = folder
        if not any_here:
            what = "no panel bundle in or below it"
            raise InputError(top, what, "folders with frame_00000.txt, … and fps.txt")
    found = [FoundBundle(number, *pair) for number, pair in enumerate(named.items())]
    return found, rejects


def read_bundles(
    found: Sequence[FoundBundle],
    config: ImportConfig | None = None,
    labels: LabelFile | None = None,
) -> tuple[pa.Table, list[Reject]]:
    """Read bundles into rows of panels.

    Parameters
    ----------
    found : sequence of FoundBundle
        Any part of what ``find_bundles`` found: a row does not depend on the others.
    config : ImportConfig
    labels : LabelFile, optional
        What ``read_labels`` read from ``config.labels``.

    Returns
    -------
    Table
        ``number``, ``name``, the columns of ``LABEL_FIELDS``, then those of ``PANEL_FIELDS``.
    list of Reject
        One for each bundle that is not in the table.
    """
    config = config or ImportConfig()
    good: list[tuple[FoundBundle, Bundle]] = []
    rejects: list[Reject] = []
    rows: list[dict[str, Any]] = []
    for one in found:
        try:
            bundle = read_bundle(one.folder, config.fps)
            known = labels.apply(one.name, bundle.labels) if labels else bundle.labels
        except BadBundle as bad:
            rejects.append(Reject.of(one.name, bad))
            continue
        good.append((one, bundle))
        row = {"name": one.name} | known.row()
        if config.assign_splits:
            row["split"] = row["split"] or split_of(one.name)
        rows.append(row)
    schema = pa.schema([("name", pa.string()), *LABEL_FIELDS])
    default = math.nan if config.metres_per_pixel is None else config.metres_per_pixel
    metres = [bundle.labels.meters_per_pixel or default for _, bundle in good]
    return (
        panel_table(
            [one.number for one, _ in good],
            [bundle.points for _, bundle in good],
            [bundle.fps for _, bundle in good],
            metres,
            pa.Table.from_pylist(rows, schema),
        ),
        rejects,
    )


def split_of(name: str) -> str:
    """Return the split of a bundle that has none: more bundles change nobody's."""
    hashed = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    share = int.from_bytes(hashed, "big") / 2**64
    train, val, test = SPLITS
    return train if share < 0.70 else val if share < 0.85 else test


def export_bundles(table: pa.Table, folder: str | Path, where: str = "panels") -> list[str]:
    """Write each row of panels as a bundle; returns their names, in the order of the rows.

    The bundle is called by its ``name``, else ``panel_<number>``. Labels and ground truth go into
    ``metadata.json``, so that importing gives the same points, fps, metres per pixel and labels.

    Raises
    ------
    InputError
        When a row is unsound (see ``to_batches``), a name leads out of ``folder`` or is there
        twice, or the bundle cannot be written.
    """
    written: dict[str, int] = {}
    for batch, beside in to_batches(table, where):
        known = beside.drop_columns(["number"]).to_pylist()
        for i, values in enumerate(known):
            number = int(batch.number[i])
            name = values.pop("name") or f"panel_{number:06d}"
            path = PurePosixPath(name)
            # Hidden folders are not found again, and .. leads out.
            hidden = any(part.startswith(".") for part in path.parts)
            if hidden or path.is_absolute() or str(path) != name or name == "." or "\0" in name:
                raise InputError(where, f"panel {number}: name", "a folder's name", shown(name))
            if name in written:
                fix = f"Panel {written[name]} has it too."
                raise InputError(where, f"panel {number}: name", "each once", shown(name), fix)
            written[name] = number
            points = batch.points[i, :, :, : batch.n_points[i]]
            metadata = _metadata(values, float(batch.metres_per_pixel[i]))
            write_bundle(Path(folder) / path, points, float(batch.fps[i]), metadata)
    order = {int(number): row for row, number in enumerate(table["number"].to_numpy())}
    return sorted(written, key=lambda name: order[written[name]])


def _metadata(values: dict[str, Any], metres_per_pixel: float) -> dict[str, Any]:
    others = values.pop("metadata", None)
    known = {key: value for key, value in values.items() if value is not None and value == value}
    if not math.isnan(metres_per_pixel):
        known["meters_per_pixel"] = metres_per_pixel
    return (json.loads(others) if others else {}) | known


def _walk(top: str) -> Iterator[tuple[str, BadBundle | None]]:
    """Yield the bundles in and below ``top``, by name, and what keeps others from being read."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield folder, BadBundle(folder, None, "cannot be listed", error.strerror)
            continue
        below = [entry for entry in inside if _may_hold_bundles(entry)]
        real = [entry.path for entry in below if not entry.is_symlink()]
        names = {entry.name for entry in inside}
        lonely = not below and (not names or any(map(is_own, names)))
        if lonely or any(map(is_frame, names)):
            yield folder, None
        for entry in below:
            if entry.is_symlink():
                reason = "a link to a folder: name that folder itself to import it"
                yield entry.path, BadBundle(entry.path, None, reason, Path(entry.path).readlink())
        waiting += reversed(real)


def _may_hold_bundles(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or is_own(entry.name):
        return False
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _is_text(name: str) -> bool:
    return name == _printable(name)


def _printable(text: str) -> str:
    """Return a path with what is not UTF-8 in it escaped, so that any table can hold it."""
    return text.encode("utf-8", "backslashreplace").decode()
