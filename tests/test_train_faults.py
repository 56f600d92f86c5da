"""DREAM trained under SIGKILL: whatever dies, and whoever does the work, no byte differs."""

import pickle
import signal
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.train
import torch
from driver import Driver, processes, wait_until

from cluster.errors import InputError
from cluster.meter import Meter
from cluster.run_record import recorded
from cluster.storage import Store
from pipelines.fpcb.config import FeatureJob, ShardConfig
from pipelines.fpcb.dataset import FEATURES, open_data_set
from pipelines.fpcb.dream.learner import Learner, is_better, validation_metrics
from pipelines.fpcb.dream.stream import PanelStream
from pipelines.fpcb.dream.train_config import DreamConfig
from pipelines.fpcb.dream.training import plan_training
from pipelines.fpcb.make_features import make_features
from pipelines.fpcb.synthesis.config import GenerateConfig
from pipelines.fpcb.train import (
    _own_ctrl_c,
    _restore,
    _validate,
    finished_training,
    train_dream,
)

OPTIONS = {"width": 4, "epochs": 5, "batch_size": 64, "lanes": 3, "patience": 9}
DRIVER = """
import sys
from cluster.connect import connect
from cluster.storage import Store
from pipelines.fpcb.dataset import FEATURES, open_data_set
from pipelines.fpcb.dream.train_config import DreamConfig
from pipelines.fpcb.train import train_dream
data, out = sys.argv[1:]
with connect() as cluster:
    options = DreamConfig(**{options})
    train_dream(cluster, open_data_set(data, FEATURES), Store(out), options)
"""


@pytest.fixture(scope="module")
def data(cluster, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("panels"))
    panels = GenerateConfig(panels=180, frames=24, seed=4)
    return make_features(FeatureJob(panels=panels, shards=ShardConfig(out=out, shard_size=60)))


def config(workers, **more):
    return DreamConfig(**{**OPTIONS, "workers": workers, **more})


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """Weights and best epoch of the same training in one process without Ray: a plain loop."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    work = plan_training(data, Store(tmp_path_factory.mktemp("none")), config(1), None, "cpu")
    plan, best, kept = work.plan, None, b""
    student = Learner(work.objective, work.config, torch.device("cpu"), work.batch, plan.steps * 5)
    epochs = range(OPTIONS["epochs"])
    parts = iter(PanelStream(work.training, work.objective.reader, plan, range(3), epochs))
    for epoch in epochs:
        for step in range(plan.steps):
            lanes = [student.gradient(next(parts).items, epoch, step, lane) for lane in range(3)]
            student.apply(torch.stack(lanes), epoch * plan.steps + step)
        figures = validation_metrics(_validate(student, work, 0, 1))
        if is_better(figures, best):
            best, kept = {"epoch": epoch, **figures}, student.weights()
    torch.set_num_threads(threads)
    return kept, best


def epochs_done(out):
    files = [*(Path(out.path) / "checkpoints").glob("*/history.json")]
    return len(Store(files[0].parent).read_json(files[0].name)) if files else 0


def test_killed_worker_and_killed_driver_change_no_byte(
    cluster, data, undisturbed, tmp_path, join_environment, capsys, monkeypatch
):
    out = Store(tmp_path)
    script = DRIVER.replace("{options}", repr({**OPTIONS, "workers": 1}))
    arguments = ("-c", script, data.store.uri, out.uri)
    driver = Driver(tmp_path, join_environment, *arguments, module=None)
    driver.wait_for(lambda: epochs_done(out) >= 1)
    (victim, *_) = processes("ray::RayTrainWorker")
    victim.kill()
    done = epochs_done(out)
    # by workers that took the place of the killed
    driver.wait_for(lambda: epochs_done(out) > done)
    driver.kill()
    assert not out.exists("models/dream.json")
    wait_until(lambda: not processes("ray::RayTrainWorker"), "the end of its workers")

    heeding = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Meter, "_ours", lambda _: {})
    monkeypatch.setattr("cluster.meter.MACHINE", "another than the workers'")
    with Meter() as meter, recorded(out / "record", ["test"], meter=meter):
        result = train_dream(cluster, data, out, config(2))
    assert meter.cpu_seconds > 2, "two workers that have loaded torch"
    assert " epochs from an earlier run" in capsys.readouterr().err
    assert [entry["epoch"] for entry in result["history"]] == [*range(OPTIONS["epochs"])]
    assert [entry["workers"] for entry in result["history"]][::4] == [1, 2]
    weights, best = undisturbed
    assert out.read_bytes("models/dream.safetensors") == weights
    assert {name: result["best"][name] for name in best} == best
    folders = [path for path in (tmp_path / "checkpoints").glob("*/*") if path.is_dir()]
    assert len(folders) == 1

    assert signal.getsignal(signal.SIGINT) is heeding, "Ray Train's handler stays"

    again = train_dream(None, data, out, config(1, device="cpu"))
    assert again["reused"]
    assert again["history"] == result["history"]
    assert finished_training(data, out, config(1, seed=1)) is None
    assert finished_training(data, out, config(1, epochs=6)) is None


def test_ctrl_c_in_a_training_is_no_good_end():
    heeding = signal.getsignal(signal.SIGINT)

    def as_ray_train_does():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(0)

    with pytest.raises(KeyboardInterrupt), _own_ctrl_c():
        as_ray_train_does()
    assert signal.getsignal(signal.SIGINT) is heeding


def test_nan_in_a_map_is_refused_with_file_and_panel(cluster, data, tmp_path):
    for name in ("data.json", *data.files(FEATURES)):
        Store(tmp_path).write_bytes(name, data.store.read_bytes(name))
    name = next(n for n in data.files(FEATURES) if "split=train/scenario=normal" in n)
    table = pq.read_table(tmp_path / name, partitioning=None)
    values = table["map_curvature"].combine_chunks()
    flat = values.flatten().to_numpy().copy()
    flat[len(flat) // 2] = np.nan
    spoilt = pa.ListArray.from_arrays(values.offsets, pa.array(flat))
    at = table.schema.get_field_index("map_curvature")
    pq.write_table(table.set_column(at, "map_curvature", spoilt), tmp_path / name)
    number = table["number"][len(table) // 2].as_py()
    with pytest.raises(InputError, match=rf"normal.*panel {number}\b.*NaN"):
        train_dream(
            cluster,
            open_data_set(str(tmp_path), FEATURES),
            Store(tmp_path / "run"),
            config(2, loader_workers=1),
        )
    wait_until(lambda: not processes("ray::RayTrainWorker"), "the end of its workers")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("weights.safetensors", b"torn"),
        ("optimizer.pt", b"PK\x03\x04"),
        ("optimizer.pt", pickle.dumps(print)),
        ("state.json", b"{"),
        ("best.safetensors", None),
    ],
)
def test_a_damaged_checkpoint_is_named(data, tmp_path, monkeypatch, name, content):
    work = plan_training(data, Store(tmp_path), config(1), None, "cpu")
    student = Learner(work.objective, config(1), torch.device("cpu"), work.batch, 10)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for own in ("weights", "best"):
        (folder / f"{own}.safetensors").write_bytes(student.weights())
    torch.save(student.optimizer.state_dict(), folder / "optimizer.pt")
    (folder / "state.json").write_text('{"history": [], "best": {}}')
    whole = ray.train.Checkpoint.from_directory(str(folder))
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: whole)
    assert _restore(student, work)["history"] == []
    path = folder / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match="damaged checkpoint") as refused:
        _restore(student, work)
    assert str(tmp_path) in str(refused.value)
