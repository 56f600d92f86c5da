"""What the detectors find, on panels of several seeds, beside baselines and a known optimum.

Three tables, each the mean and spread over seeds:
- event: cracks that happen while the panel bends, per scenario;
- weak: the same with cracks of a tenth of their strength or less (``--severity``);
- compatibility: damaged from the first frame, the table's constants;
and the sweep: the smallest kink found in 90 % of panels at 1 % false alarms, against a matched
filter that is told the time and place of the kink.

    python benchmarks/fpcb_detectors.py FOLDER [--panels 10000] [--seeds 0,1,2]

FOLDER keeps data and runs, so that a second call computes nothing again; its table.json is the
result.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import Store
from pipelines.fpcb.dataset import FEATURES, open_data_set
from pipelines.fpcb.detection.cached import MapReader, open_features
from pipelines.fpcb.detection.detectors import FILTER
from pipelines.fpcb.detection.kink_filter import KinkFilter, after
from pipelines.fpcb.detection.maps import MAPS, split_maps
from pipelines.fpcb.evaluation.sweep import smallest_found

SETS = {
    "event": [],
    "weak": ["--severity", "0.02,0.2"],
    "compatibility": ["--variation", "none", "--onset", "from_start"],
}
DETECTORS = ("dream", "patchcore", "ensemble", "best_feature", "mahalanobis")
FALSE_ALARMS = 0.01


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--panels", type=int, default=10_000)
    parser.add_argument("--kinks", type=int, default=6_000)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--more", default="", help="options of every run, as one text")
    asked = parser.parse_args()
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    tables: dict[str, Any] = {}
    for name in asked.sets.split(","):
        runs = [run_job(asked, name, seed) for seed in seeds]
        tables[name] = over_seeds([json.loads((r / "metrics.json").read_text()) for r in runs])
        print_table(name, tables[name])
    if "event" in tables:
        sweeps = [sweep(asked, seed) for seed in seeds]
        tables["kinks"] = {
            key: spread([one[key] for one in sweeps]) for key in sweeps[0] if sweeps[0][key]
        }
        print("\nsmallest kink found in 90 % of panels at 1 % false alarms, degrees")
        for key, value in tables["kinks"].items():
            ratio = value["mean"] / tables["kinks"]["oracle"]["mean"]
            print(f"  {key:14} {value['mean']:.2f} ± {value['std']:.2f}  {ratio:.2f} x oracle")
    (asked.folder / "table.json").write_text(json.dumps(tables, indent=1))


def run_job(asked: argparse.Namespace, name: str, seed: int) -> Path:
    """Run the whole job once for a set and a seed."""
    out = asked.folder / f"{name}-{seed}"
    options = ["--panels", asked.panels, "--seed", seed, *SETS[name], *asked.more.split()]
    if not (out / "metrics.json").exists():
        tenfold("run", *options, "--out", out)
    return out


def sweep(asked: argparse.Namespace, seed: int) -> dict[str, float | None]:
    """Return the smallest kink that each detector, and the oracle, finds."""
    run = asked.folder / f"event-{seed}"
    kinks, scores = asked.folder / f"kinks-{seed}", asked.folder / f"kink-scores-{seed}"
    shape = ["--scenario", "kink", "--kink-deg", "0.1,30"]
    if not (scores / "scores.parquet").exists():
        tenfold("features", "--panels", asked.kinks, "--seed", 1000 + seed, *shape, "--out", kinks)
        tenfold("score", run, kinks, "--out", scores)
    found = pq.read_table(scores / "scores.parquet")
    known = pq.read_table(run / "scores.parquet")
    good = known.filter(pa.compute.equal(known["label"], 0))
    angle = found["hinge_deg"].to_numpy()
    smallest = {}
    for name in DETECTORS:
        limit = np.quantile(good[name].to_numpy(), 1 - FALSE_ALARMS)
        smallest[name] = smallest_found(angle, found[name].to_numpy() > limit)["value"]
    limit, evidence = oracle(run, kinks, found)
    smallest["oracle"] = smallest_found(angle, evidence > limit)["value"]
    return smallest


def oracle(run: Path, kinks: Path, found: pa.Table) -> tuple[float, npt.NDArray[np.float32]]:
    """Return the limit and the evidence (n,) of the filter that knows time and place.

    Good panels are asked at the times and places of the kinks: the same question.
    """
    kink_filter = KinkFilter.from_arrays(Store(run).read_arrays(FILTER))
    number, evidence = evidence_of(kinks, kink_filter, None)
    _, good = evidence_of(run / "data", kink_filter, ("val", "test"))
    order = np.argsort(number)
    assert (number[order] == found["number"].to_numpy()).all()
    frame = found["damage_frame"].to_numpy().astype(int)
    place = (found["crack_place"].to_numpy() * kink_filter.places).astype(int)
    told = evidence[order, frame, place]
    drawn = np.random.default_rng(0).integers(0, len(frame), len(good))
    asked = good[np.arange(len(good)), frame[drawn], place[drawn]]
    return float(np.quantile(asked, 1 - FALSE_ALARMS)), told


def evidence_of(
    folder: Path, kink_filter: KinkFilter, splits: Sequence[str] | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return numbers and evidence (n, n_frames, places) of the good panels of some splits."""
    data = open_data_set(str(folder), FEATURES)
    numbers, parts = [], []
    for name in data.files(FEATURES):
        split, scenario = (part.split("=")[1] for part in name.split("/")[1:3])
        if splits is not None and (split not in splits or scenario not in GOOD):
            continue
        rows = open_features(data.store, name).read(
            columns=["number", "n_frames", *(f"map_{m}" for m in MAPS)]
        )
        n_frames = rows["n_frames"][0].as_py()
        excess, bend = split_maps(MapReader(MAPS, n_frames).read(rows, name))
        parts.append(after(kink_filter.evidence(excess), bend))
        numbers.append(rows["number"].to_numpy())
    return np.concatenate(numbers), np.concatenate(parts)


GOOD = ("normal", "light_distortion", "thick_panel")


def over_seeds(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and spread of every figure of the tables."""
    tests = [run["test"] for run in runs]
    table: dict[str, Any] = {"detectors": {}, "called_ng": {}, "found": {}}
    for name in DETECTORS:
        for scenario in tests[0]["detectors"][name]["cracked"]:
            for measure in ("pr_auc", "roc_auc", "recall_at_precision"):
                values = [
                    t["detectors"][name]["cracked"][scenario][measure]["value"] for t in tests
                ]
                table["detectors"].setdefault(name, {}).setdefault(scenario, {})[measure] = spread(
                    values
                )
    for name in ("dream", "patchcore", "ensemble"):
        rows = [t["detectors"][name]["confusion"]["scenarios"] for t in tests]
        table["called_ng"][name] = {
            one["scenario"]: spread([row[k]["called_ng"]["value"] for row in rows])
            for k, one in enumerate(rows[0])
        }
    for scenario, one in (tests[0]["found"] or {}).items():
        table["found"][scenario] = {
            what: spread([t["found"][scenario][what]["median_error"]["value"] for t in tests])
            for what in one
        }
    table["seconds"] = spread([run["total_seconds"] for run in runs])
    table["stages"] = {
        stage["name"]: spread([run["stages"][k]["seconds"] for run in runs])
        for k, stage in enumerate(runs[0]["stages"])
    }
    return table


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Return mean, standard deviation and the values."""
    known = [value for value in values if value is not None]
    if not known:
        return {"mean": None, "std": None, "values": [*values]}
    std = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
    return {"mean": float(np.mean(known)), "std": std, "values": [*values]}


def print_table(name: str, table: dict[str, Any]) -> None:
    """Print one set's figures."""
    print(f"\n{name}: {table['seconds']['mean']:.0f} s a run")
    for measure in ("pr_auc", "roc_auc", "recall_at_precision"):
        print(f"  {measure}")
        for detector, scenarios in table["detectors"].items():
            cells = (f"{s} {v[measure]['mean']:.4f} ± {v[measure]['std']:.4f}"
                     for s, v in scenarios.items())  # fmt: skip
            print(f"    {detector:13} " + "  ".join(cells))
    print("  called NG")
    for detector, scenarios in table["called_ng"].items():
        cells = (f"{s} {v['mean']:.2%} ± {v['std']:.2%}" for s, v in scenarios.items())
        print(f"    {detector:13} " + "  ".join(cells))
    for scenario, one in table["found"].items():
        cells = (f"{what} {v['mean']}" for what, v in one.items())
        print(f"  off, {scenario}: " + "  ".join(cells))


def tenfold(*options: Any) -> None:
    """Run `tenfold fpcb`, its results to stderr."""
    command = [sys.executable, "-m", "pipelines", "fpcb", *map(str, options)]
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
