"""What the quality report reads of a data set: bounded, however many panels there are."""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.fpcb.dataset import (
    DESCRIPTION,
    FEATURES,
    PANELS,
    REJECTS,
    UNKNOWN,
    DataSet,
    open_data_set,
)
from pipelines.fpcb.features.extraction import FeatureConfig, extract
from pipelines.fpcb.features.store import LEVELS, column, frame_array
from pipelines.fpcb.features.table import names
from pipelines.fpcb.panel_table import to_batches
from pipelines.fpcb.panels import PanelBatch
from pipelines.fpcb.synthesis.config import GenerateConfig
from pipelines.fpcb.synthesis.generator import generate

Values = npt.NDArray[np.float32]

KEPT_PANELS = 5_000  # of a split and scenario, for distributions
MEASURED_PANELS = 150  # of a scenario, where no features are kept
FRAME_PANELS = 600  # of a scenario, for the frames before a crack
COMPARED_PANELS = 20_000  # whose points are read, where no features are kept: a second a thousand
_BATCH = 500
_TEST = "test"


@dataclass(frozen=True, eq=False)
class Rows:
    """Panels: what is known of each (a row each), and their features (n, k) of ``names(level)``."""

    known: pd.DataFrame
    values: Values

    def __len__(self) -> int:
        return len(self.known)

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Rows":
        """Return the chosen rows."""
        return Rows(self.known[chosen].reset_index(drop=True), self.values[chosen])


@dataclass(frozen=True, eq=False)
class Frames:
    """Panels of one number of frames: what is known of each, frame features (n, n_frames, k)."""

    known: pd.DataFrame
    values: Values


@dataclass(frozen=True)
class Duplicates:
    """Panels that are there more than once.

    Attributes
    ----------
    compared, of : int
        Panels that were compared, and that there are.
    by : str
        What was compared: FEATURES or PANELS.
    groups : list
        The panels of each group of equals: (number, split, scenario, name).
    """

    compared: int
    of: int
    by: str
    groups: list[list[tuple[int, str, str, str | None]]]

    @property
    def panels(self) -> int:
        """Panels that repeat another."""
        return sum(len(group) - 1 for group in self.groups)

    @property
    def across_splits(self) -> int:
        """Groups with panels of more than one split."""
        return sum(len({split for _, split, *_ in group}) > 1 for group in self.groups)


def open_any(folder: str) -> DataSet:
    """Open a data set that has points, features, or both.

    Raises
    ------
    InputError
        When the folder holds none, or an unfinished or damaged one.
    """
    about: Any = None
    with suppress(FileNotFoundError, ValueError):
        about = Store(folder).read_json(DESCRIPTION)
    listed = [part for part in (PANELS, FEATURES) if isinstance(about, dict) and part in about]
    opened = [open_data_set(folder, part) for part in listed or [PANELS]]
    return opened[0]


def generator_of(data: DataSet) -> GenerateConfig | None:
    """Return the options that the data set was generated with; None where it was not."""
    options: dict[str, Any] = data.about.get("generator") or {}
    if not options:
        return None
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    with suppress(TypeError, InputError):  # another version had other options
        return GenerateConfig(**options)
    return None


def feature_config(data: DataSet) -> FeatureConfig:
    """Return how the features were measured, or would be by default."""
    with suppress(TypeError, InputError):
        return FeatureConfig(**data.about.get("features_of", {}))
    return FeatureConfig()


def group_of(name: str) -> tuple[str, str]:
    """Return split and scenario of the panels in file ``name``."""
    parts = dict(part.split("=", 1) for part in name.split("/") if "=" in part)
    return parts.get("split", UNKNOWN), parts.get("scenario", UNKNOWN)


def read_rows(data: DataSet) -> tuple[Rows, Duplicates]:
    """Read what is known of the panels and their features, and find panels that repeat.

    At most ``KEPT_PANELS`` of a split and scenario are kept; all are compared. Of a data set
    without features nothing is measured here: ``values`` has no columns.
    """
    if data.files(FEATURES):
        return _read_features(data)
    tables, kept = [], dict.fromkeys(map(group_of, data.files(PANELS)), 0)
    for name in data.files(PANELS):
        group = group_of(name)
        if kept[group] < KEPT_PANELS:
            known = _known(_read(data, name, _other_columns(data, name, ("points",))), name)
            kept[group] += len(known)
            tables.append(known)
    known = pd.concat(tables, ignore_index=True)
    return Rows(known, np.empty((len(known), 0), np.float32)), _compare_points(data)


def measured_rows(
    panels: Mapping[str, Sequence[tuple[PanelBatch, pa.Table]]], config: FeatureConfig
) -> tuple[Rows, list[Frames]]:
    """Measure panels of each scenario: their features, and those of their frames."""
    parts, frames = [], []
    for batches in panels.values():
        for batch, truth in batches:
            found = extract(batch, config)
            known = truth.to_pandas()
            known["n_points"], known["fps"] = batch.n_points, batch.fps
            known["metres_per_pixel"], known["n_frames"] = batch.metres_per_pixel, batch.n_frames
            known = _named(known)
            parts.append(Rows(known, found.panel))
            frames.append(Frames(known, found.frame))
    known = pd.concat([part.known for part in parts], ignore_index=True)
    return Rows(known, np.concatenate([part.values for part in parts])), frames


def read_frames(data: DataSet) -> Iterator[Frames]:
    """Yield frame features of at most ``FRAME_PANELS`` a scenario, none of the test split."""
    wanted, read = [column("frame", name) for name in names("frame")], dict[str, int]()
    for name in data.files(FEATURES):
        split, scenario = group_of(name)
        if split == _TEST or read.get(scenario, 0) >= FRAME_PANELS:
            continue
        columns = [*_other_columns(data, name, LEVELS), *wanted]
        for table in _batches(data, name, columns):
            for n_frames in np.unique(table["n_frames"].to_numpy()):
                rows = table.filter(pa.compute.equal(table["n_frames"], n_frames))
                known = _known(rows.drop_columns(wanted), name)
                yield Frames(known, frame_array(rows, names("frame")))
            read[scenario] = read.get(scenario, 0) + len(table)
            if read[scenario] >= FRAME_PANELS:
                break


def some_panels(
    data: DataSet, config: GenerateConfig | None, known: pd.DataFrame, count: int
) -> dict[str, list[tuple[PanelBatch, pa.Table]]]:
    """Return at most ``count`` panels of each scenario with their points, none of the test split
    where there are others: those kept, or else the same made again by the generator.
    """
    found = {}
    for scenario in sorted(known["scenario"].unique()):
        if data.files(PANELS):
            found[scenario] = _stored(data, scenario, count)
        elif config is not None:
            own = known[known["scenario"] == scenario]
            own = own[own["split"] != _TEST] if (own["split"] != _TEST).any() else own
            numbers = np.sort(own["number"].to_numpy()[:count])
            found[scenario] = [generate(config, numbers)]
    return found


def read_rejects(data: DataSet) -> pd.DataFrame:
    """Return what was left out: bundle, file, line, reason, value."""
    if not data.store.exists(REJECTS):
        return pd.DataFrame({name: [] for name in ("bundle", "file", "line", "reason", "value")})
    text = dict.fromkeys(("bundle", "file", "reason", "value"), pa.string())
    options = pc.ConvertOptions(column_types={**text, "line": pa.int64()})
    try:
        parse = pc.ParseOptions(newlines_in_values=True)
        source = io.BytesIO(data.store.read_bytes(REJECTS))
        return pc.read_csv(source, parse_options=parse, convert_options=options).to_pandas()
    except pa.ArrowException as error:
        got = str(error).splitlines()[0]
        raise InputError(f"{data.store}/{REJECTS}", "cannot be read", got=got) from error


def _read_features(data: DataSet) -> tuple[Rows, Duplicates]:
    wanted = [column("panel", name) for name in names("panel")]
    # Metres are those of the points: two scales do not make two panels of the same points.
    in_pixels = np.array([not name.endswith("_m") for name in names("panel")])
    kept = dict.fromkeys(map(group_of, data.files(FEATURES)), 0)
    parts: list[Rows] = []
    hashes, who = [], []
    for name in data.files(FEATURES):
        group = group_of(name)
        table = _read(data, name, [*_other_columns(data, name, LEVELS), *wanted])
        values = np.stack([table[wanted_one].to_numpy() for wanted_one in wanted], axis=1)
        known = _known(table.drop_columns(wanted), name)
        hashes += [_hash(row) for row in np.ascontiguousarray(values[:, in_pixels])]
        who += _who(known)
        if kept[group] < KEPT_PANELS:
            kept[group] += len(known)
            parts.append(Rows(known, values))
    known = pd.concat([part.known for part in parts], ignore_index=True)
    rows = Rows(known, np.concatenate([part.values for part in parts]))
    return rows, _equal(hashes, who, data.n_panels, FEATURES)


def _compare_points(data: DataSet) -> Duplicates:
    hashes, who = [], []
    for name in data.files(PANELS):
        columns = _other_columns(data, name, ())
        for table in _batches(data, name, columns):
            lists = table["points"].combine_chunks()
            flat, ends = lists.values.to_numpy(), lists.offsets.to_numpy()
            hashes += [_hash(flat[a:b]) for a, b in pairwise(ends)]
            who += _who(_known(table.drop_columns(["points"]), name))
        if len(hashes) >= COMPARED_PANELS:
            break
    return _equal(hashes, who, data.n_panels, PANELS)


def _equal(
    hashes: Sequence[bytes], who: Sequence[tuple[int, str, str, str | None]], of: int, by: str
) -> Duplicates:
    groups: dict[bytes, list[tuple[int, str, str, str | None]]] = {}
    for digest, panel in zip(hashes, who, strict=True):
        groups.setdefault(digest, []).append(panel)
    equal = [
        sorted(group, key=lambda panel: panel[0]) for group in groups.values() if len(group) > 1
    ]
    return Duplicates(len(who), of, by, sorted(equal, key=lambda group: group[0][0]))


def _who(known: pd.DataFrame) -> list[tuple[int, str, str, str | None]]:
    numbers, splits, scenarios = (known[c].tolist() for c in ("number", "split", "scenario"))
    called = known["name"].tolist() if "name" in known else [None] * len(known)
    return list(zip(numbers, splits, scenarios, called, strict=True))


def _hash(values: npt.NDArray[Any]) -> bytes:
    return hashlib.blake2b(values.data, digest_size=12).digest()


def _stored(data: DataSet, scenario: str, count: int) -> list[tuple[PanelBatch, pa.Table]]:
    files = [name for name in data.files(PANELS) if group_of(name)[1] == scenario]
    files = [name for name in files if group_of(name)[0] != _TEST] or files
    found: list[tuple[PanelBatch, pa.Table]] = []
    for name in files:
        table = next(_batches(data, name, _other_columns(data, name, ()), count), None)
        if table is not None and len(table):
            batches = to_batches(table.slice(0, count), f"{data.store}/{name}")
            found += [(b, _with_group(truth, name)) for b, truth in batches]
            count -= len(table)
        if count <= 0:
            break
    return found


def _with_group(truth: pa.Table, name: str) -> pa.Table:
    """Name split and scenario as their file does, where the rows leave them open."""
    for column_name, value in zip(("split", "scenario"), group_of(name), strict=True):
        filled = pa.array([value] * len(truth), pa.string())
        place = truth.schema.get_field_index(column_name)
        truth = truth.set_column(place, column_name, filled)
    return truth


def _known(table: pa.Table, name: str) -> pd.DataFrame:
    return _named(_with_group(table, name).to_pandas())


def _named(known: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the columns that every data set has, whether it knows them or not."""
    for name in ("label", "crack_frame"):
        known[name] = pd.to_numeric(known[name]).astype(float) if name in known else np.nan
    return known


def _other_columns(data: DataSet, name: str, but: Sequence[str]) -> list[str]:
    """Return the columns of a file that are not of the levels, or called, ``but``."""
    prefixes = tuple(f"{level}_" for level in but)
    schema = _open(data, name).schema_arrow
    return [c for c in schema.names if c not in but and not c.startswith(prefixes)]


def _open(data: DataSet, name: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(f"{data.store.path}/{name}", filesystem=data.store.filesystem)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(data, name, error) from error


def _read(data: DataSet, name: str, columns: Sequence[str]) -> pa.Table:
    with _open(data, name) as file:
        try:
            return _all_there(file.read([*columns], use_threads=False), columns)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise _unreadable(data, name, error) from error


def _batches(
    data: DataSet, name: str, columns: Sequence[str], size: int = _BATCH
) -> Iterator[pa.Table]:
    with _open(data, name) as file:
        try:
            for batch in file.iter_batches(size, columns=[*columns], use_threads=False):
                yield _all_there(pa.Table.from_batches([batch]), columns)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise _unreadable(data, name, error) from error


def _all_there(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    for name in columns:
        table.schema.field(name)  # KeyError: of another version
    return table


def _unreadable(data: DataSet, name: str, error: Exception) -> InputError:
    got = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"{data.store}/{name}", "cannot be read", got=got, fix="Make it again.")
