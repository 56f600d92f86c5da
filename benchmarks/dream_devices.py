"""Samples per second of DREAM's training step on a device, with and without mixed precision.

Random maps of the shape of panels; a step is what training does: cracks drawn and applied, inputs
twice, both networks forwards and backwards, the optimizer. With ``--peak-tflops`` (of the data
sheet, for the precision at hand) the share of it that the networks reach is stated as well.
Needs torch, pyarrow, scipy, scikit-learn and safetensors, and no Ray.

    python -m benchmarks.dream_devices --device cuda --batches 256,1024,4096
"""

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipelines.fpcb.detection.kink_filter import KinkFilter, kink_template
from pipelines.fpcb.dream.config import CrackConfig
from pipelines.fpcb.dream.learner import Learner
from pipelines.fpcb.dream.objective import MapObjective, Weights
from pipelines.fpcb.dream.train_config import DreamConfig

FRAMES, PLACES, WINDOW = 60, 64, 5
HALF = {"cuda": ("bfloat16",), "mps": ("float16",)}


def main() -> None:
    """Measure each batch size and precision; print a row each and one JSON line at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", default="256,1024,4096")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peak-tflops", type=float)
    asked = parser.parse_args()
    rows = []
    for batch in map(int, asked.batches.split(",")):
        for precision in ("float32", *HALF.get(asked.device, ())):
            rows.append(measure(asked, batch, precision))
            print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    name = torch.cuda.get_device_name() if asked.device == "cuda" else asked.device
    print(json.dumps({"device": name, "torch": torch.__version__, "rows": rows}))


def measure(asked: argparse.Namespace, batch: int, precision: str) -> dict[str, Any]:
    """Return samples per second, the median of some runs, and what they came to."""
    template = kink_template(PLACES, WINDOW)
    objective = MapObjective(
        n_frames=FRAMES,
        width=DreamConfig().width,
        kink_filter=KinkFilter(np.eye(PLACES, dtype=np.float32), template),
        cracks=CrackConfig(),
        weights=Weights(ssim=0.5, focal=5.0),
    )
    device = torch.device(asked.device)
    config = DreamConfig(precision=precision)
    learner = Learner(objective, config, device, batch, total_steps=1_000)
    maps = torch.randn(batch, 2, FRAMES, PLACES).half()
    if device.type == "cuda":
        maps = maps.pin_memory()

    def step(number: int) -> None:
        learner.apply(learner.gradient(maps, 0, number, 0)[None], number)

    with FlopCounterMode(display=False) as counter:
        step(0)
    flops = counter.get_total_flops()
    seconds = []
    for run in range(asked.runs):
        synchronize(device)
        started = time.perf_counter()
        for number in range(asked.steps):
            step(1 + run * asked.steps + number)
        synchronize(device)
        seconds.append((time.perf_counter() - started) / asked.steps)
    middle = statistics.median(seconds)
    row = {
        "batch": batch,
        "precision": precision,
        "samples_per_s": round(batch / middle, 1),
        "gflop_per_sample": round(flops / batch / 1e9, 3),
        "tflops": round(flops / middle / 1e12, 3),
    }
    if asked.peak_tflops:
        row["share_of_peak"] = round(flops / middle / 1e12 / asked.peak_tflops, 4)
    return row


def synchronize(device: torch.device) -> None:
    """Wait for what a device has been given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()


if __name__ == "__main__":
    main()
