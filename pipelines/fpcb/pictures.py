"""Panels for the report to look at: the worst misses and false alarms, and what was found.

RUN/pictures.npz   their maps, as each detector sees them, and their points where there are any
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.memory_bank.reweight import Bank
from cluster.errors import InputError
from cluster.storage import Store
from pipelines.fpcb.dataset import FEATURES, PANELS, DataSet, file_name
from pipelines.fpcb.detection.cached import open_features
from pipelines.fpcb.detection.detectors import load_detectors
from pipelines.fpcb.panel_table import read_panels, to_batches
from pipelines.fpcb.panels import PanelBatch
from pipelines.fpcb.quality.data import generator_of
from pipelines.fpcb.synthesis.generator import generate

PICTURES = "pictures.npz"

_WORST = 4


def choose_pictures(scores: pa.Table) -> dict[int, str]:
    """Return why each panel is worth looking at, by number.

    The cracked panels that were missed by most, the good ones called NG most surely, and of each
    cracked scenario the find that was least sure.
    """
    known = scores.filter(pa.compute.is_valid(scores["label"]))
    number, one = known["number"].to_numpy(), known["ensemble"].to_numpy()
    bad, called = known["label"].to_numpy() == 1, known["called_ng"].to_numpy()
    order = np.argsort(one, kind="stable")
    chosen = {int(number[i]): "missed" for i in order[(bad & ~called)[order]][:_WORST]}
    chosen |= {int(number[i]): "false alarm" for i in order[(~bad & called)[order]][::-1][:_WORST]}
    scenario = np.array(known["scenario"].to_pylist(), dtype=object)
    for name in sorted({*scenario[bad & called].tolist()}, key=str):
        found = order[(bad & called & (scenario == name))[order]]
        chosen[int(number[found[0]])] = "found"
    return chosen


def write_pictures(
    chosen: dict[int, str],
    store: Store,
    *,
    data: DataSet,
    run: Store,
    scores: pa.Table,
    bank: Bank | None,
) -> dict[str, Any]:
    """Write ``pictures.npz`` of the ``chosen`` panels; a shard function of one shard."""
    drawn = _drawn(data, run, scores, bank, chosen)
    store.write_arrays(PICTURES, **drawn)
    return {"rows": len(chosen), "files": [PICTURES]}


def _drawn(
    data: DataSet, run: Store, scores: pa.Table, bank: Bank | None, chosen: dict[int, str]
) -> dict[str, npt.NDArray[Any]]:
    wanted = [*chosen]
    if not wanted:
        return {"number": np.array([], np.int64), "reason": np.array([], "U1")}
    trained = load_detectors(run, bank)
    rows = _rows(data, scores, wanted)
    maps = trained.maps(rows, str(data.store))
    drawn: dict[str, npt.NDArray[Any]] = {
        "number": np.array(wanted),
        "reason": np.array([*chosen.values()]),
        **maps,
    }
    batch = _points(data, scores, wanted)
    if batch is not None:
        drawn |= {"points": batch.points, "n_points": batch.n_points, "fps": batch.fps}
    return drawn


def _rows(data: DataSet, scores: pa.Table, wanted: Sequence[int]) -> pa.Table:
    """Return the features of panels, in the order wanted."""
    tables = []
    for name in _files(data, scores, wanted, FEATURES):
        file = open_features(data.store, name)
        columns = [n for n in file.schema_arrow.names if not n.startswith("panel_")]
        for group in range(file.num_row_groups):
            numbers = file.read_row_group(group, columns=["number"])["number"].to_numpy()
            rows = np.flatnonzero(np.isin(numbers, wanted))
            if rows.size:
                table = file.read_row_group(group, columns=columns, use_threads=False)
                tables.append(table.take(rows))
    return _in_order(pa.concat_tables(tables, promote_options="permissive"), wanted)


def _points(data: DataSet, scores: pa.Table, wanted: Sequence[int]) -> PanelBatch | None:
    """Return the points of panels: kept ones, or those of the generator; None without either."""
    config = generator_of(data)
    if config is not None:
        return generate(config, np.array(wanted))[0]
    if not data.files(PANELS):
        return None
    found = [
        table.filter(pa.compute.is_in(table["number"], pa.array(wanted)))
        for table in map(partial(read_panels, data.store), _files(data, scores, wanted, PANELS))
    ]
    batches = [*to_batches(_in_order(pa.concat_tables(found), wanted), str(data.store))]
    return batches[0][0] if len(batches) == 1 else None  # of several lengths: maps alone


def _files(data: DataSet, scores: pa.Table, wanted: Sequence[int], part: str) -> list[str]:
    """Files that may have the panels: those of their splits and scenarios."""
    rows = scores.filter(pa.compute.is_in(scores["number"], pa.array(wanted)))
    pairs = zip(rows["split"].to_pylist(), rows["scenario"].to_pylist(), strict=True)
    folders = {
        f"{part}/{file_name(split, scenario, 0)}".rsplit("/", 1)[0] for split, scenario in pairs
    }
    return [name for name in data.files(part) if name.rsplit("/", 1)[0] in folders]


def _in_order(table: pa.Table, wanted: Sequence[int]) -> pa.Table:
    at = {number: row for row, number in enumerate(table["number"].to_pylist())}
    if {*wanted} - {*at}:
        raise InputError("pictures", "panels that are no longer in the data", fix="Run it again.")
    return table.take([at[number] for number in wanted])
