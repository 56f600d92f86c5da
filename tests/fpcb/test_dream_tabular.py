"""DREAM on frame features: scale in one pass, shifts shaped like cracks, and that it learns."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cluster.errors import InputError
from pipelines.fpcb.detection.cached import Panels, Piece
from pipelines.fpcb.dream.objective import TabularObjective
from pipelines.fpcb.dream.tabular import (
    Scale,
    ShiftDrawer,
    TabularPair,
    camera_columns,
    measure_scale,
    tabular_loss,
)
from pipelines.fpcb.dream.train_config import ShiftConfig

N_FRAMES = 5


def panels_of(store, values):
    """Write values (panels, frames, columns) as row groups of 3 panels, all good."""
    sink = io.BytesIO()
    columns = {
        f"frame_c{k}": pa.array([*values[:, :, k]], pa.list_(pa.float32()))
        for k in range(values.shape[2])
    }
    n = len(values)
    lengths = pa.array([values.shape[1]] * n, pa.int32())
    table = pa.table({"number": pa.array(range(n)), "n_frames": lengths, **columns})
    pq.write_table(table, sink, row_group_size=3)
    store.write_bytes("f.parquet", sink.getvalue())
    groups = -(-n // 3)
    pieces = [Piece("f.parquet", g, tuple(range(min(3, n - 3 * g)))) for g in range(groups)]
    return Panels(store, tuple(pieces), values.shape[1])


def test_scale_is_that_of_all_rows_and_constants_are_dropped(store):
    random = np.random.default_rng(0)
    values = random.normal([1e4, -3, 0.5, 7], [2, 5, 1e-3, 0], (10, N_FRAMES, 4))
    values = values.astype(np.float32)
    scale = measure_scale(panels_of(store, values), ("c0", "c1", "c2", "c3"))
    rows = values.reshape(-1, 4).astype(np.float64)
    assert scale.columns == ("c0", "c1", "c2")
    assert np.allclose(scale.mean, rows.mean(axis=0)[:3], rtol=1e-6)
    assert np.allclose(scale.std, rows.std(axis=0)[:3], rtol=1e-5)


def test_nan_and_constant_features_are_refused(store):
    values = np.ones((4, N_FRAMES, 2), np.float32)
    with pytest.raises(InputError, match="some that vary, got constants"):
        measure_scale(panels_of(store, values), ("c0", "c1"))
    values[3, 2, 1] = np.nan
    with pytest.raises(InputError, match=r"f\.parquet: frame features of panel 3.*NaN"):
        measure_scale(panels_of(store, values), ("c0", "c1"))


def test_columns_are_those_that_need_no_scale():
    columns = camera_columns()
    assert "kink_deg" in columns
    assert not [name for name in columns if name.endswith(("_m", "_m_s", "_m_s2"))]


def test_shifts_stay_in_their_group_and_share():
    columns = ("kink_deg", "excess_max_rad", "impact_max_px_s", "kink_place", "tip_x_share")
    drawer = ShiftDrawer(columns, ShiftConfig(shifted_share=0.3), torch.device("cpu"))
    shifts = drawer.draw(20_000, torch.Generator().manual_seed(0))
    amount = shifts.amount.numpy()
    assert (amount >= 0).all()
    assert not amount[:, 3:].any()  # neither where the kink is nor where the tip is grows
    kink, jolt = amount[:, :2].any(axis=1), amount[:, 2] > 0
    assert (kink & ~jolt).any()
    assert (jolt & ~kink).any()
    assert (jolt & kink).any()
    assert amount[amount > 0].max() < 2 * 8
    # A third group draws nothing at times: no more than the share, and not much less.
    assert 0.2 < shifts.mask.mean() < 0.3


def test_training_finds_shifts_that_were_never_seen():
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    columns = tuple(f"{kind}_{k}" for kind in ("kink", "impact", "tip", "speed") for k in range(4))
    hidden = random.normal(size=(6_000, 4)).astype(np.float32)
    rows = torch.from_numpy(np.repeat(hidden, 4, axis=1)) + 0.3 * torch.randn(6_000, 16)
    scale = Scale(columns, np.zeros(16, np.float32), np.full(16, 1.05, np.float32))
    goal = TabularObjective(n_frames=20, scale=scale, shifts=ShiftConfig())
    pair = goal.networks()
    assert isinstance(pair, TabularPair)
    drawer = ShiftDrawer(columns, goal.shifts, torch.device("cpu"))
    optimizer = torch.optim.AdamW(pair.parameters(), lr=5e-3)
    judged = []
    for _ in range(2):
        with torch.no_grad():
            generator = torch.Generator().manual_seed(9)
            _, scores, labels = goal.judge(pair, rows[4_000:].reshape(100, 20, 16), generator)
        good, cracked = scores[labels == 0], scores[labels == 1]
        judged.append(float((cracked[:, None] > good).float().mean()))
        for step in range(150):
            optimizer.zero_grad()
            part = rows[:4_000][torch.randperm(4_000)[:500]]
            generator = torch.Generator().manual_seed(step)
            tabular_loss(pair, part, drawer, generator).backward()
            optimizer.step()
    assert judged[1] > max(judged[0], 0.75)
