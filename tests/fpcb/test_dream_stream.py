"""Panels streamed from the cache: every good one, the same for any workers, bad ones refused."""

import io
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.fpcb.dataset import FEATURES, DataSet
from pipelines.fpcb.detection.cached import (
    FeatureFile,
    FrameReader,
    MapReader,
    Piece,
    good_panels,
    read_piece,
    to_frames,
)
from pipelines.fpcb.dream.stream import PanelStream, StreamPlan, deal, loader
from pipelines.fpcb.features.store import FeatureWriter
from pipelines.fpcb.features.table import FEATURE_VERSION

N_FRAMES, PLACES = 6, 3
READER = MapReader(("curvature",), N_FRAMES)


def write(store, groups, split="train", scenario="normal", n_frames=N_FRAMES, spoil=None):
    """Write panels whose map holds their own number; groups of (numbers, label)."""
    name = f"{FEATURES}/split={split}/scenario={scenario}/00000.parquet"
    sink, writer = io.BytesIO(), None
    for numbers, label in groups:
        maps = [np.full(n_frames * PLACES, number, np.float16) for number in numbers]
        for number, values in zip(numbers, maps, strict=True):
            if number == spoil:
                values[4] = np.nan
        table = pa.table(
            {
                "number": pa.array(numbers),
                "label": pa.array([label] * len(numbers), pa.int8()),
                "n_frames": pa.array([n_frames] * len(numbers), pa.int32()),
                "map_curvature": pa.array(maps, pa.list_(pa.float16())),
                "frame_kink_deg": pa.array(
                    [np.arange(n_frames, dtype=np.float32) + 100 * number for number in numbers]
                ),
            }
        )
        writer = writer or pq.ParquetWriter(sink, table.schema)
        writer.write_table(table)
    writer.close()
    store.write_bytes(name, sink.getvalue())
    return name


def data_set(store, *names, version=FEATURE_VERSION):
    files = {name.removeprefix(f"{FEATURES}/"): {} for name in names}
    return DataSet(store, {"feature_version": version, FEATURES: {"files": files}})


@pytest.fixture
def panels(store):
    good = write(store, [([*range(20)], 0), ([*range(20, 29)], 0)])
    mixed = write(store, [([*range(29, 40)], 0), ([*range(90, 99)], 1)], scenario="thick")
    other = write(store, [([*range(200, 220)], 0)], split="val")
    return good_panels(data_set(store, good, mixed, other), "train")


def plan(lanes=4, part=2, steps=5, seed=3):
    return StreamPlan(lanes=lanes, part=part, steps=steps, buffer=4, seed=seed)


def numbers(part):
    values = part.items.reshape(len(part.items), -1)
    assert (values == values[:, :1]).all()
    return values[:, 0].int().tolist()


def test_good_panels_are_those_with_label_0_in_their_split(panels):
    assert panels.size == 40
    assert panels.n_frames == N_FRAMES
    read = np.concatenate([read_piece(panels.store, piece, READER) for piece in panels.pieces])
    assert read.shape == (40, 1, N_FRAMES, PLACES)
    assert sorted(read[:, 0, 0, 0].astype(int)) == [*range(40)]


def test_epoch_takes_each_panel_once_when_lanes_are_even(panels):
    parts = [*PanelStream(panels, READER, plan(steps=5), range(4), range(2))]
    assert [(p.epoch, p.step, p.lane) for p in parts] == [
        (epoch, step, lane) for epoch in range(2) for step in range(5) for lane in range(4)
    ]
    for epoch in range(2):
        seen = [n for part in parts if part.epoch == epoch for n in numbers(part)]
        # A lane may be a panel short, and begins again.
        assert len(seen) == 40
        assert len(set(seen)) >= 36
    first, second = ([numbers(p) for p in parts if p.epoch == epoch] for epoch in range(2))
    assert first != second


@pytest.mark.parametrize("world", [2, 3, 4])
def test_batches_do_not_depend_on_the_number_of_workers(panels, world):
    whole = [*PanelStream(panels, READER, plan(), range(4), range(2))]
    for rank in range(world):
        lanes = range(rank, 4, world)
        own = PanelStream(panels, READER, plan(), lanes, range(1, 2))
        expected = [numbers(p) for p in whole if p.epoch == 1 and p.lane in lanes]
        assert [numbers(part) for part in own] == expected


def test_loader_processes_give_the_same_batches_in_the_same_order(panels):
    alone = [*PanelStream(panels, READER, plan(), range(4), range(1))]
    made = loader(PanelStream(panels, READER, plan(), range(4), range(1)), 3, pinned=False)
    assert made.num_workers == 2
    assert [(p.lane, numbers(p)) for p in made] == [(p.lane, numbers(p)) for p in alone]


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=40),
    st.integers(1, 8),
    st.integers(0, 9),
)
def test_lanes_share_all_pieces_evenly(sizes, lanes, epoch):
    pieces = [Piece("f", k, tuple(range(size))) for k, size in enumerate(sizes)]
    decks = deal(pieces, lanes, 1, epoch)
    dealt = [deck for deck in decks if len(deck) < len(pieces) or lanes == 1]
    rows = [sum(len(piece.rows) for piece in deck) for deck in decks]
    if len(pieces) >= lanes > 1:
        assert sorted(p.group for deck in dealt for p in deck) == [*range(len(sizes))]
        assert max(rows) - min(rows) <= max(sizes)
    assert all(decks)


def test_frames_are_interpolated_along_time():
    values = np.arange(11, dtype=np.float32)[None, :, None] * 2
    assert np.allclose(to_frames(values, 1, 6, "x")[0, :, 0], np.linspace(0, 20, 6))
    random = np.random.default_rng(0).normal(size=(2, 9, 4)).astype(np.float32)
    expected = [
        np.stack([np.interp(np.linspace(0, 8, 14), np.arange(9), one[:, k]) for k in range(4)], 1)
        for one in random
    ]
    assert np.allclose(to_frames(random, 1, 14, "x"), expected, atol=1e-6)


def test_panels_of_other_lengths_are_resampled_or_refused(store):
    names = [
        write(store, [([1, 2], 0)]),
        write(store, [([7], 0)], scenario="long", n_frames=11),
        write(store, [([8], 0)], scenario="short", n_frames=3),
    ]
    found = good_panels(data_set(store, *names), "train")
    assert found.n_frames == N_FRAMES
    read = [read_piece(store, piece, READER) for piece in found.pieces]
    assert [part.shape[2] for part in read] == [N_FRAMES] * 3
    far = write(store, [([9], 0)], scenario="far", n_frames=13)
    with pytest.raises(InputError, match=r"scenario=far.*3 to 12, got 13"):
        read_piece(store, Piece(far, 0, (0,)), READER)


def test_table_of_mixed_lengths_keeps_its_order(store):
    tables = [
        pq.read_table(io.BytesIO(store.read_bytes(name)))
        for name in (
            write(store, [([1, 2], 0)]),
            write(store, [([7, 8], 0)], scenario="long", n_frames=9),
        )
    ]
    table = pa.concat_tables(tables).take([2, 0, 3, 1])
    read = READER.read(table, "x")
    assert read[:, 0, 0, 0].tolist() == [7, 1, 8, 2]


def test_frame_reader_gives_frames_or_panels(panels):
    (piece, *_) = panels.pieces
    rows = read_piece(panels.store, piece, FrameReader(("kink_deg",), N_FRAMES))
    assert rows.ravel()[:8].tolist() == [0, 1, 2, 3, 4, 5, 100, 101]
    whole = read_piece(panels.store, piece, FrameReader(("kink_deg",), N_FRAMES, flat=False))
    assert np.array_equal(whole.reshape(rows.shape), rows)


def test_nan_is_refused_with_file_and_panel_and_the_refusal_travels(store):
    name = write(store, [([*range(30)], 0)], spoil=17)
    found = good_panels(data_set(store, name), "train")
    stream = PanelStream(found, READER, plan(steps=4), range(4), range(1))
    *_, last = pickle.loads(pickle.dumps([*stream]))
    error = InputError(*last.refused)
    assert name in str(error)
    assert "panel 17" in str(error)


def test_no_good_panels_in_train_is_refused(store):
    name = write(store, [([1, 2], 1)])
    with pytest.raises(InputError, match=r"no good panels.*label 0 in split 'train'"):
        good_panels(data_set(store, name), "train")
    with pytest.raises(InputError, match="no good panels"):
        good_panels(data_set(store), "val")


def test_features_of_another_version_are_refused(store):
    with pytest.raises(InputError, match=r"version of the features.*got 0-old"):
        good_panels(data_set(store, version="0-old"), "train")


def test_torn_file_is_refused(tmp_path):
    store = Store(tmp_path)
    name = write(store, [([1], 0)])
    store.write_bytes(name, store.read_bytes(name)[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        good_panels(data_set(store, name), "train")


def test_flipped_bit_in_a_file_of_features_is_refused_wherever_it_changes_anything(tmp_path):
    store, name = Store(tmp_path), "rows.parquet"
    values = np.random.default_rng(0).normal(size=4_000)
    table = pa.table({"number": np.arange(values.size), "panel_x": values})
    with store.open_output(name) as sink:
        writer = FeatureWriter(sink)
        writer.write(table)
        writer.close()
    whole = store.read_bytes(name)

    def read_flipped(place):
        flipped = bytearray(whole)
        flipped[place] ^= 16
        store.write_bytes(name, bytes(flipped))
        try:
            return FeatureFile(store, name).read()
        except InputError:
            return None

    found = [read_flipped(place) for place in range(0, len(whole), len(whole) // 50)]
    assert all(one is None or one.equals(table) for one in found)
    assert found.count(None) > 40
