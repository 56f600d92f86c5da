"""Panels as rows of Parquet: nothing changes on the way, and bad rows are named."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.fpcb.panel_table import (
    PANEL_FIELDS,
    panel_table,
    read_panels,
    to_batches,
    to_table,
    write_panels,
)
from pipelines.fpcb.panels import PanelBatch

FIELDS = ("number", "points", "n_points", "fps", "metres_per_pixel")


def random_batch(seed: int, panels: int = 5, n_frames: int = 4, n_points: int = 9) -> PanelBatch:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, n_points + 1, panels).astype(np.int32)
    counts[0] = n_points
    points = rng.integers(-(2**15), 2**15, (panels, 2, n_frames, n_points)).astype(np.int16)
    points *= np.arange(n_points) < counts[:, None, None, None]
    metres = np.where(rng.random(panels) < 0.3, np.nan, rng.random(panels) + 1e-9)
    number = rng.permutation(10 * panels)[:panels]
    return PanelBatch(number, points, counts, rng.random(panels) + 0.1, metres)


def labels_of(batch: PanelBatch) -> pa.Table:
    return pa.table(
        {
            "number": batch.number,
            "name": pa.array([None if n % 3 == 0 else f"p{n}" for n in batch.number], pa.string()),
            "label": pa.array([None if n % 4 == 0 else n % 2 for n in batch.number], pa.int8()),
            "severity": np.sqrt(batch.number),
        }
    )


def assert_same(one: PanelBatch, other: PanelBatch) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        assert getattr(one, name).dtype == getattr(other, name).dtype, name


def bend(seed: int) -> np.ndarray:
    """A panel of 60 frames bent to a half circle, with noise: (2, 60, n_points), px."""
    rng = np.random.default_rng(seed)
    n_points, noise = rng.integers(200, 261), rng.uniform(0.12, 0.38)
    angle = np.linspace(0, np.pi, 60)[:, None] * np.linspace(0, 1, n_points)
    step = rng.uniform(210, 250) / n_points
    points = np.stack([np.cos(angle), np.sin(angle)]).cumsum(axis=2) * step
    points += np.array([806, 562])[:, None, None] + rng.normal(0, noise, points.shape)
    return np.rint(points).astype(np.int16)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 6), st.integers(1, 10))
def test_panels_come_back_exactly_from_a_table(seed, panels, n_frames, n_points):
    batch = random_batch(seed, panels, n_frames, n_points)
    [(again, beside)] = to_batches(to_table(batch, labels_of(batch)))
    assert_same(again, batch)
    assert beside.to_pydict() == labels_of(batch).to_pydict()
    assert beside.schema.types == labels_of(batch).schema.types


def test_panels_come_back_exactly_from_parquet(tmp_path):
    batch, store = random_batch(1, panels=40), Store(tmp_path)
    table = to_table(batch, labels_of(batch))
    write_panels(store, "panels.parquet", table)
    again = read_panels(store, "panels.parquet")
    assert again.equals(table)
    assert again.schema.equals(table.schema)
    assert read_panels(store, "panels.parquet", ["number", "label"]).num_columns == 2
    with pytest.raises(InputError, match=r"panels\.parquet: no column 'crack_frame'"):
        read_panels(store, "panels.parquet", ["number", "crack_frame"])


def test_parquet_is_the_same_bytes_each_time(tmp_path):
    table, store = to_table(random_batch(2)), Store(tmp_path)
    for name in ("a.parquet", "b.parquet"):
        write_panels(store, name, table)
    assert store.checksum("a.parquet") == store.checksum("b.parquet")


def test_table_has_the_promised_columns_and_types():
    table = to_table(random_batch(3))
    assert table.schema.equals(PANEL_FIELDS)
    assert table["name"].null_count == len(table)
    batch = random_batch(4)
    row = to_table(batch).slice(2, 1).to_pylist()[0]
    n = batch.n_points[2]
    assert row["points"] == batch.points[2, :, :, :n].ravel().tolist()
    assert (row["n_points"], row["n_frames"]) == (n, 4)


def test_row_does_not_depend_on_the_other_panels():
    batch = random_batch(5)
    whole = to_table(batch)
    for i in range(len(batch)):
        alone = PanelBatch(*(getattr(batch, name)[[i]] for name in PanelBatch.__annotations__))
        assert to_table(alone).equals(whole.slice(i, 1))


def test_realistic_panels_take_ten_kilobytes(tmp_path):
    panels = [bend(seed) for seed in range(100)]
    beside = pa.table({"label": np.zeros(100, np.int8)})
    table = panel_table(np.arange(100), panels, np.full(100, 30.0), np.full(100, 1e-4), beside)
    write_panels(Store(tmp_path), "panels.parquet", table)
    size_bytes = Store(tmp_path).size("panels.parquet")
    assert size_bytes < 100 * 12_000 < sum(panel.nbytes for panel in panels) / 4


def test_points_are_plain_pixels_to_any_reader_of_parquet(tmp_path):
    panel = bend(0)
    table = panel_table([7], [panel], [30.0], [np.nan], pa.table({"label": [1]}))
    write_panels(Store(tmp_path), "panels.parquet", table)
    column = pq.ParquetFile(tmp_path / "panels.parquet").metadata.row_group(0).column(7)
    assert column.path_in_schema == "points.list.element"
    assert column.compression == "ZSTD"
    assert "DELTA_BINARY_PACKED" in column.encodings
    frame = pq.read_table(tmp_path / "panels.parquet").to_pandas()
    np.testing.assert_array_equal(frame["points"][0].reshape(panel.shape), panel)


def test_batches_group_panels_by_number_of_frames_in_the_order_of_their_rows():
    short, long = random_batch(6, n_frames=3), random_batch(7, n_frames=5, n_points=12)
    long.number[:] += 1_000
    tables = [to_table(batch, labels_of(batch)) for batch in (long, short)]
    rows = pa.concat_tables([tables[0].slice(0, 2), tables[1], tables[0].slice(2)])
    (first, beside), (second, _) = to_batches(rows)
    assert_same(first, short)
    assert_same(second, long)
    assert beside["name"].to_pylist() == labels_of(short)["name"].to_pylist()


def test_no_panels_give_no_batches(tmp_path):
    table = to_table(random_batch(8)).slice(0, 0)
    assert list(to_batches(table)) == []
    write_panels(Store(tmp_path), "none.parquet", table)
    assert list(to_batches(read_panels(Store(tmp_path), "none.parquet"))) == []
    assert panel_table([], [], [], [], pa.table({"name": pa.array([], pa.string())})).num_rows == 0


def test_table_of_other_panels_beside_is_refused():
    batch = random_batch(9)
    with pytest.raises(ValueError, match="other panels"):
        to_table(batch, labels_of(batch).take(list(range(4, -1, -1))))


@pytest.mark.parametrize(
    "points_type", [pa.list_(pa.int64()), pa.large_list(pa.int16()), pa.list_(pa.int32(), 72)]
)
def test_panels_of_other_writers_are_read_when_their_values_fit(points_type):
    batch = random_batch(10)
    batch.n_points[:] = 9
    table = to_table(batch).drop_columns(["name"])
    lists = pa.array(table["points"].to_pylist(), points_type)
    table = table.set_column(table.schema.get_field_index("points"), "points", lists)
    table = table.set_column(0, "number", table["number"].cast(pa.int32()))
    [(again, _)] = to_batches(table)
    assert_same(again, batch)


def changed(column: str, row: int, value: object, kind: pa.DataType | None = None) -> pa.Table:
    table = to_table(random_batch(11))
    place = table.schema.get_field_index(column)
    values = table[column].to_pylist()
    values[row] = value(values[row]) if callable(value) else value
    return table.set_column(place, column, pa.array(values, kind or table[column].type))


@pytest.mark.parametrize(
    ("column", "value", "kind", "message"),
    [
        ("points", lambda p: p[:-1], None, "expected 2 · n_frames · n_points values, got"),
        ("points", lambda p: [], None, "expected 2 · n_frames · n_points values, got 0"),
        ("points", None, None, "expected a value, got null"),
        ("points", lambda p: [None, *p[1:]], pa.list_(pa.int16()), "expected integers, got null"),
        ("points", lambda p: [40_000, *p[1:]], pa.list_(pa.int32()), "40000"),
        ("points", lambda p: [0.5, *p[1:]], pa.list_(pa.float64()), "truncated"),
        ("fps", 0.0, None, "expected a positive number, got 0.0"),
        ("fps", -30.0, None, "expected a positive number, got -30.0"),
        ("fps", np.nan, None, "expected a positive number, got nan"),
        ("fps", np.inf, None, "expected a positive number, got inf"),
        ("fps", None, None, "expected a value, got null"),
        ("metres_per_pixel", 0.0, None, "expected a positive number, or null, got 0.0"),
        ("metres_per_pixel", np.inf, None, "expected a positive number, or null, got inf"),
        ("n_frames", 0, None, "expected 1 or more, got 0"),
        ("n_points", -3, None, "expected 1 or more, got -3"),
        ("n_points", 2**40, pa.int64(), "1099511627776"),
    ],
)
def test_bad_row_is_named(column, value, kind, message):
    with pytest.raises(InputError) as caught:
        list(to_batches(changed(column, 3, value, kind), "panels-00007.parquet"))
    assert str(caught.value).startswith(f"panels-00007.parquet: row 4, column '{column}': ")
    assert message in str(caught.value)


def test_number_that_is_there_twice_is_named():
    table = changed("number", 3, to_table(random_batch(11))["number"][1].as_py())
    with pytest.raises(InputError, match=r"row 4, column 'number': expected each number once"):
        list(to_batches(table))


@pytest.mark.parametrize("column", [name for name in PANEL_FIELDS.names if name != "name"])
def test_missing_column_is_named(column):
    with pytest.raises(InputError, match=f"no column '{column}'"):
        list(to_batches(to_table(random_batch(12)).drop_columns([column])))


def test_column_of_another_type_is_named():
    table = to_table(random_batch(13))
    place = table.schema.get_field_index("fps")
    table = table.set_column(place, "fps", pa.array(["30"] * 4 + ["thirty"]))
    with pytest.raises(InputError, match=r"row 5, column 'fps': expected double"):
        list(to_batches(table))


@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, 0.99])
def test_torn_file_is_named(tmp_path, kept):
    store = Store(tmp_path)
    write_panels(store, "panels.parquet", to_table(random_batch(14)))
    data = store.read_bytes("panels.parquet")
    torn = data[: int(kept * len(data)) if isinstance(kept, float) else kept]
    store.write_bytes("panels.parquet", torn)
    with pytest.raises(InputError, match=r"panels\.parquet: cannot be read as Parquet"):
        read_panels(store, "panels.parquet")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.parquet: cannot be read as Parquet"):
        read_panels(Store(tmp_path), "none.parquet")


def test_flipped_bytes_are_refused_or_change_nothing(tmp_path):
    store, rng = Store(tmp_path), np.random.default_rng(0)
    batch = random_batch(15, panels=3)
    write_panels(store, "panels.parquet", to_table(batch))
    data = store.read_bytes("panels.parquet")
    column = pq.ParquetFile(tmp_path / "panels.parquet").metadata.row_group(0).column(6)
    start, size = column.data_page_offset, column.total_compressed_size
    refused = 0
    for place in rng.integers(start, start + size, 100):
        flipped = bytearray(data)
        flipped[place] ^= int(rng.integers(1, 256))
        store.write_bytes("panels.parquet", bytes(flipped))
        try:
            [(again, _)] = to_batches(read_panels(store, "panels.parquet"))
            assert_same(again, batch)
        except InputError:
            refused += 1
    assert refused > 50
