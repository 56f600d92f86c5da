"""Train DREAM through Ray Train: any number of workers, the same weights; resumed after a loss.

RUN/checkpoints/dream-<key>/  Ray Train's own, one checkpoint (last and best weights, optimizer,
                              history), named by all that determines the result
RUN/models/dream.*            the best weights, when training is finished
RUN/training.json             what each epoch came to
"""

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from pyarrow import fs
from ray import train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError
from safetensors import SafetensorError
from torch import Tensor, distributed

from cluster.errors import InputError, ShardsFailed
from cluster.machine import MACHINE
from cluster.meter import Spent
from cluster.nodes import Cluster
from cluster.progress import gauge
from cluster.resources import engine_resources
from cluster.run_record import count_spent, current, run_name
from cluster.storage import Store
from pipelines.fpcb.dataset import DataSet
from pipelines.fpcb.detection.cached import read_piece
from pipelines.fpcb.detection.kink_filter import KinkFilter
from pipelines.fpcb.dream.learner import Learner, is_better, validation_metrics
from pipelines.fpcb.dream.model import About, DreamModel, read_model
from pipelines.fpcb.dream.stream import PanelStream, Part, StreamPlan, loader
from pipelines.fpcb.dream.train_config import DreamConfig
from pipelines.fpcb.dream.training import Work, plan_training, training_key
from pipelines.fpcb.stages import say

HISTORY = "training.json"

_STAGE = "train DREAM"
_DAMAGES = (OSError, ValueError, KeyError, RuntimeError, EOFError, SafetensorError, UnpicklingError)
_POLL_S = 0.5
_REPORTS_EVERY_S = "0.5"  # an epoch waits for Ray Train to have seen the last one's report


def train_dream(
    cluster: Cluster,
    data: DataSet,
    out: Store,
    config: DreamConfig,
    kink_filter: KinkFilter | None = None,
) -> dict[str, Any]:
    """Train on the good panels of split ``train``; judge on those of ``val``.

    Parameters
    ----------
    cluster : Cluster
    data : DataSet
        Features.
    out : Store
        The run folder, which every machine sees.
    config : DreamConfig
    kink_filter : KinkFilter, optional
        Default: fitted on up to 1,000 good training panels.

    Returns
    -------
    dict
        ``best``: epoch and figures of the model kept; ``history``: a dict an epoch; ``reused``:
        whether an earlier run had finished it.

    Raises
    ------
    InputError
        For data or options that cannot be used.
    ShardsFailed
        When workers were lost more than ``max_failures`` times.
    """
    done = finished_training(data, out, config, kink_filter)
    if done is not None:
        say(f"{_STAGE}: finished by an earlier run")
        return done
    work = plan_training(data, out, config, kink_filter, _device(cluster, config.device))
    resources = engine_resources(f"torch:{work.device}")
    cluster.require(resources, _STAGE)
    cluster.check_shared(out)
    workers = config.workers or _workers(cluster, work.device, config.lanes)
    with _live_lines(work):
        outcome = _fit(work, workers, resources)
    if "refused" in outcome:
        raise InputError(*outcome["refused"])
    out.write_json(HISTORY, outcome["history"])
    return {**outcome, "reused": False}


def finished_training(
    data: DataSet, out: Store, config: DreamConfig, kink_filter: KinkFilter | None = None
) -> dict[str, Any] | None:
    """Return what `train_dream` would, where it has been done already; needs no cluster."""
    try:
        about, _ = read_model(out)
        if about.fingerprint == training_key(data, config, kink_filter) and out.exists(HISTORY):
            return {"best": about.best, "history": out.read_json(HISTORY), "reused": True}
    except (InputError, ValueError):
        return None
    return None


def _device(cluster: Cluster, wanted: str) -> str:
    if wanted != "auto":
        return wanted
    offered = {name for node in cluster.nodes for name in node.resources}
    return next((name for name in ("cuda", "mps") if name in offered), "cpu")


def _workers(cluster: Cluster, device: str, lanes: int) -> int:
    name = "CPU" if device == "cpu" else device
    offered = sum(int(node.resources.get(name, 0)) for node in cluster.nodes)
    return max(1, min(lanes, offered))


def _fit(work: Work, workers: int, resources: dict[str, Any]) -> dict[str, Any]:
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _REPORTS_EVERY_S)
    local = work.out.is_local
    trainer = TorchTrainer(
        _loop,  # type: ignore[arg-type]  # its annotation denies the value it hands on
        train_loop_config={"work": work},
        scaling_config=scaling(workers, resources),
        run_config=RunConfig(
            name=f"dream-{work.about.fingerprint}",
            storage_path=f"{work.out.path}/checkpoints",
            storage_filesystem=None if local else work.out.filesystem,
            failure_config=FailureConfig(max_failures=work.config.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),  # which holds the best weights too
        ),
    )
    try:
        with _own_ctrl_c():
            result = trainer.fit()
    except TrainingFailedError as error:
        raise ShardsFailed(_STAGE, {"worker": str(error).strip()}) from error
    _sweep(work, result.checkpoint)
    outcome: dict[str, Any] = {**result.return_value}  # type: ignore[attr-defined]
    for spent in outcome.pop("spent", []):
        count_spent(spent)
    return outcome


@contextmanager
def _own_ctrl_c() -> Iterator[None]:
    """Answer Ctrl-C as everywhere: Ray Train would end the process with 0, as if all was well.

    Its handler also stays for good, and keeps the process of its controller alive.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Ray Train leaves signals alone as well
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        raise KeyboardInterrupt from end
    finally:
        signal.signal(signal.SIGINT, before)


def scaling(workers: int, resources: Mapping[str, Any]) -> ScalingConfig:
    """Return what each worker gets: its engine's options, its device by our own name too.

    Ray finds a GPU on some Macs too; with ``use_gpu`` alone CUDA training could land there.
    """
    return ScalingConfig(
        num_workers=workers,
        use_gpu=bool(resources.get("num_gpus")),
        resources_per_worker={"CPU": resources["num_cpus"], **resources.get("resources", {})},
    )


def _sweep(work: Work, last: train.Checkpoint | None) -> None:
    """Remove checkpoints that a killed worker or driver left half-made."""
    files, folder = work.out.filesystem, f"{work.out.path}/{work.live.rpartition('/')[0]}"
    for info in files.get_file_info(fs.FileSelector(folder, allow_not_found=True)):
        kept = last is not None and info.base_name == last.path.rpartition("/")[2]
        if info.type == fs.FileType.Directory and not kept:
            files.delete_dir(info.path)


def _loop(given: dict[str, Any]) -> dict[str, Any]:
    """Train on one of the workers; what it returns on the first is the outcome."""
    work: Work = given["work"]
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_num_threads(1)
    device = train.torch.get_device() if work.device == "cuda" else torch.device(work.device)
    rank, world = (f() for f in (train.get_context().get_world_rank,
                                 train.get_context().get_world_size))  # fmt: skip
    config, plan = work.config, work.plan
    student = Learner(work.objective, config, device, work.batch, config.epochs * plan.steps)
    try:
        state = _restore(student, work)
    except InputError as error:
        return {"refused": error.__reduce__()[1]}
    lanes = range(rank, plan.lanes, world)
    todo = range(len(state["history"]), config.epochs)
    stream = PanelStream(work.training, work.objective.reader, plan, lanes, todo)
    readers = config.loader_workers
    if readers is None:
        readers = 0 if device.type == "cpu" else 2
    parts = iter(loader(stream, readers, pinned=device.type == "cuda"))
    for epoch in todo:
        if epoch - state["best"].get("epoch", epoch) >= config.patience:
            break
        started = time.perf_counter()
        try:
            loss = _epoch(student, parts, epoch, plan, rank, world)
            trained_s = time.perf_counter() - started
            figures = validation_metrics(_validate(student, work, rank, world))
        except _RefusedError as refused:
            return {"refused": refused.args[0]}
        items_per_s = plan.steps * work.batch / trained_s / work.objective.items_per_panel
        entry = {"epoch": epoch, "loss": loss, **figures, "panels_per_s": items_per_s,
                 "seconds": time.perf_counter() - started, "workers": world}  # fmt: skip
        state["history"].append(entry)
        if is_better(entry, state["best"] or None):
            state["best"] = {"epoch": epoch, "loss": loss, **figures}
            state["weights"] = student.weights()
        _keep(student, state, work, rank)
    spent = _everyone(Spent(MACHINE, time.process_time()), world)
    if rank == 0:
        if not state["best"]:
            what = "the loss is not a finite number"
            return {"refused": ("--learning-rate", what, None, None, "Lower it.")}
        student.load_weights(state["weights"])
        about = asdict(work.about) | {"best": state["best"]}
        DreamModel(student.networks, About(**about)).save(work.out)
    return {"best": state["best"], "history": state["history"], "spent": spent}


class _RefusedError(Exception):
    """Some worker found data that cannot be used; all of them stop, and none is tried again."""


def _epoch(
    student: Learner, parts: Iterator[Part], epoch: int, plan: StreamPlan, rank: int, world: int
) -> float:
    """Take all steps of an epoch; return the mean loss.

    Before each gradient goes a 1 where a lane's data cannot be used, so that all stop together.
    """
    losses_seen = []
    size = 1 + sum(parameter.numel() for parameter in student.parameters)
    mine = len(range(rank, plan.lanes, world))
    for step in range(plan.steps):
        own, refused = [], None
        for _ in range(mine):
            part = next(parts) if refused is None else None
            refused = refused or (part.refused if part is not None else None)
            if part is None or refused is not None:
                own.append(torch.ones(size + 1, device=student.device))
                continue
            assert (part.epoch, part.step) == (epoch, step)
            found = student.gradient(part.items, epoch, step, part.lane)
            own.append(torch.cat([found.new_zeros(1), found]))
        gradients = _gather(torch.stack(own), plan.lanes, world)
        if gradients[:, 0].any():
            raise _RefusedError(next(one for one in _everyone(refused, world) if one is not None))
        losses_seen.append(student.apply(gradients[:, 1:], epoch * plan.steps + step))
    return float(np.mean(losses_seen))


def _gather(own: Tensor, lanes: int, world: int) -> Tensor:
    """Return what all lanes have, in their order; worker r of W has lanes r, r + W, …."""
    if world == 1:
        return own
    if distributed.get_backend() != "nccl":
        own = own.cpu()
    most = -(-lanes // world)
    padded = torch.cat([own, own.new_zeros(most - len(own), own.shape[1])])
    every = [torch.empty_like(padded) for _ in range(world)]
    distributed.all_gather(every, padded)
    return torch.stack(every, dim=1).reshape(most * world, -1)[:lanes]


def _validate(student: Learner, work: Work, rank: int, world: int) -> list[Any]:
    """Judge every piece of the validation panels on one of the workers; return all, in order."""
    own: dict[int, Any] = {}
    refused = None
    for number in range(rank, len(work.validation.pieces), world):
        piece = work.validation.pieces[number]
        try:
            panels = read_piece(work.validation.store, piece, work.objective.validation_reader)
        except InputError as error:
            refused = error.__reduce__()[1]
            break
        own[number] = student.judge(torch.from_numpy(panels), number)
    found = _everyone((own, refused), world)
    for _, cause in found:
        if cause is not None:
            raise _RefusedError(cause)
    joined = {number: part for parts, _ in found for number, part in parts.items()}
    return [joined[number] for number in sorted(joined)]


def _everyone(value: Any, world: int) -> Sequence[Any]:
    if world == 1:
        return [value]
    values: list[Any] = [None] * world
    distributed.all_gather_object(values, value)
    return values


def _keep(student: Learner, state: dict[str, Any], work: Work, rank: int) -> None:
    """Hand Ray Train a checkpoint of everything, and tell the world how far it is."""
    entry = state["history"][-1]
    if rank:
        train.report(entry)
        return
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        (there / "weights.safetensors").write_bytes(student.weights())
        (there / "best.safetensors").write_bytes(state["weights"])
        torch.save(student.optimizer.state_dict(), there / "optimizer.pt")
        known = {"history": state["history"], "best": state["best"]}
        (there / "state.json").write_text(json.dumps(known))
        train.report(entry, checkpoint=train.Checkpoint.from_directory(folder))
    work.out.write_json(work.live, state["history"])
    show_epoch(entry, run_name(work.out))


def show_epoch(entry: Mapping[str, Any], run: str) -> None:
    """Set the metrics of training to those of an epoch."""
    tags = {"stage": _STAGE, "run": run}
    gauge("tenfold_train_epoch", float(entry["epoch"] + 1), tags)
    for name in ("loss", "val_ap", "panels_per_s"):
        gauge(f"tenfold_train_{name}", float(entry[name]), tags)


def _restore(student: Learner, work: Work) -> dict[str, Any]:
    """Go on from the last checkpoint, if there is one.

    Raises
    ------
    InputError
        When it is damaged.
    """
    checkpoint = train.get_checkpoint()
    if checkpoint is None:
        return {"history": [], "best": {}, "weights": b""}
    with checkpoint.as_directory() as folder:
        there = Path(folder)
        try:
            student.load_weights((there / "weights.safetensors").read_bytes())
            optimizer = torch.load(there / "optimizer.pt", map_location="cpu", weights_only=True)
            student.optimizer.load_state_dict(optimizer)
            state: dict[str, Any] = json.loads((there / "state.json").read_text())
            state["weights"] = (there / "best.safetensors").read_bytes()
        except _DAMAGES as error:
            kept = str(work.live).rpartition("/")[0]
            raise InputError(
                f"{work.out}/{kept}", "damaged checkpoint", got=str(error).splitlines()[0],
                fix="Remove that folder: training begins again.",
            ) from error  # fmt: skip
    return state


@contextmanager
def _live_lines(work: Work) -> Iterator[None]:
    """Print a line for each epoch as it ends."""
    stop = threading.Event()
    told = _history(work)
    if told:
        say(f"{_STAGE}: {len(told)} epochs from an earlier run")
    shown = len(told)

    def tell() -> None:
        nonlocal shown
        while True:
            last = stop.wait(_POLL_S)
            if (record := current()) is not None:
                record.say_how_far(_STAGE, shown, work.config.epochs, "epochs")
            for entry in _history(work)[shown:]:
                shown += 1
                say(
                    f"{_STAGE}: epoch {entry['epoch'] + 1}/{work.config.epochs}"
                    f" · loss {entry['loss']:.4f} · validation AP {entry['val_ap']:.4f},"
                    f" loss {entry['val_loss']:.4f} · {entry['panels_per_s']:,.0f} panels/s"
                )
            if last:
                return

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _history(work: Work) -> list[dict[str, Any]]:
    with suppress(OSError, ValueError):
        if work.out.exists(work.live):
            history: list[dict[str, Any]] = work.out.read_json(work.live)
            return history
    return []
