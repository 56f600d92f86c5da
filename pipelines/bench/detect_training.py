"""Training of tabular DREAM against the usual script: batches of 32 and a row at a time."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipelines.fpcb.dataset import FEATURES, DataSet
from pipelines.fpcb.detection.cached import FrameReader, Panels, good_panels, read_piece
from pipelines.fpcb.dream.learner import Learner, seeded
from pipelines.fpcb.dream.objective import TabularObjective
from pipelines.fpcb.dream.stream import PanelStream, StreamPlan
from pipelines.fpcb.dream.tabular import (
    ShiftDrawer,
    TabularPair,
    camera_columns,
    measure_scale,
    tabular_loss,
)
from pipelines.fpcb.dream.train_config import DreamConfig
from pipelines.fpcb.features.store import read_rows

_PEER_BATCH, _PEER_RATE = 32, 1e-3
_BATCH, _RATE = 4096, 6e-3


def training_table(
    data: DataSet, *, panels: int = 750, peer_epochs: int = 4, epochs: int = 20, seed: int = 0
) -> list[dict[str, Any]]:
    """Train both on the same rows, one thread; return a dict for each.

    Parameters
    ----------
    data : DataSet
        Features; good panels of split ``train`` are learned, all of ``val`` judged by labels.
    panels : int
        About how many panels are learned from.
    peer_epochs, epochs : int
        Passes of the usual script and of ours.

    Returns
    -------
    list of dict
        ``tool``, ``rows_per_cpu_s``, ``cpu_s``, ``epochs``, and ``val_pr_auc`` per panel, its
        score being the largest of its frames.
    """
    some = good_panels(data, "train").first(panels)
    goal = TabularObjective(
        n_frames=some.n_frames,
        scale=measure_scale(some, camera_columns()),
        shifts=DreamConfig().shifts,
    )
    truth = _validation(data, goal)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            _row("batch 32, a row at a time", _train_usual, some, goal, peer_epochs, seed, truth),
            _row("tenfold", _train_streamed, some, goal, epochs, seed, truth),
        ]
    finally:
        torch.set_num_threads(threads)


Train = Callable[[Panels, TabularObjective, int, int], TabularPair]


def _row(
    tool: str,
    run: Train,
    panels: Panels,
    goal: TabularObjective,
    epochs: int,
    seed: int,
    truth: tuple[Tensor, npt.NDArray[Any]],
) -> dict[str, Any]:
    started = time.process_time()
    pair = run(panels, goal, epochs, seed)
    cpu_s = time.process_time() - started
    frames, labels = truth
    with torch.inference_mode():
        rows = pair.standardise(frames.reshape(-1, frames.shape[-1]))
        scores = pair(rows)[1].reshape(frames.shape[:2]).amax(dim=1)
    return {
        "tool": tool,
        "rows_per_cpu_s": epochs * panels.size * panels.n_frames / cpu_s,
        "cpu_s": cpu_s,
        "epochs": epochs,
        "val_pr_auc": float(average_precision_score(labels, scores.numpy())),
    }


def _validation(data: DataSet, goal: TabularObjective) -> tuple[Tensor, npt.NDArray[Any]]:
    reader, frames, labels = goal.validation_reader, [], []
    for name in data.files(FEATURES):
        if name.startswith(f"{FEATURES}/split=val/"):
            table = read_rows(data.store, name, [*reader.columns, "label"])
            frames.append(reader.read(table, name))
            labels.append(table["label"].to_numpy())
    return torch.from_numpy(np.concatenate(frames)), np.concatenate(labels)


class _Rows(Dataset[Tensor]):
    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.rows[index]


def _train_usual(panels: Panels, goal: TabularObjective, epochs: int, seed: int) -> TabularPair:
    torch.manual_seed(seed)
    pair = TabularPair(goal.scale)
    reader = FrameReader(goal.scale.columns, panels.n_frames)
    rows = np.concatenate([read_piece(panels.store, piece, reader) for piece in panels.pieces])
    optimizer = torch.optim.Adam(pair.parameters(), lr=_PEER_RATE)
    drawer = ShiftDrawer(goal.scale.columns, goal.shifts, torch.device("cpu"))
    generator = seeded(torch.device("cpu"), seed)
    loader = DataLoader(_Rows(torch.from_numpy(rows)), batch_size=_PEER_BATCH, shuffle=True)
    for _ in range(epochs):
        for batch in loader:
            optimizer.zero_grad()
            loss = tabular_loss(pair, batch, drawer, generator)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return pair.eval()


def _train_streamed(panels: Panels, goal: TabularObjective, epochs: int, seed: int) -> TabularPair:
    items = panels.size * panels.n_frames
    batch = min(_BATCH, items)
    steps = items // batch
    config = DreamConfig(variant="tabular", seed=seed, lanes=1, learning_rate=_RATE / 4)
    plan = StreamPlan(lanes=1, part=batch, steps=steps, buffer=goal.buffer, seed=seed)
    student = Learner(goal, config, torch.device("cpu"), batch, epochs * steps)
    parts: Iterator[Any] = iter(PanelStream(panels, goal.reader, plan, [0], range(epochs)))
    for part in parts:
        gradient = student.gradient(part.items, part.epoch, part.step, 0)
        student.apply(gradient[None], part.epoch * steps + part.step)
    pair = student.networks.eval()
    assert isinstance(pair, TabularPair)
    return pair
