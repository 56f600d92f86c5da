"""`tenfold bench` and `tenfold profile`."""

from typing import Any

import typer

from pipelines.bench.config import LassoBenchConfig
from pipelines.bench.detect import DetectBenchConfig, bench_detect
from pipelines.bench.fpcb import FpcbBenchConfig, bench_fpcb
from pipelines.bench.lasso import bench_lasso
from pipelines.bench.profile import ProfileConfig, profile
from pipelines.bench.table import cells
from pipelines.flags import with_flags_of
from pipelines.terminal import Json, group, print_json, print_rows

app = group("Side by side with peers, at the same certified answers.")
root = typer.Typer()


@app.command("lasso")
@with_flags_of(LassoBenchConfig)
def show_bench_lasso(config: LassoBenchConfig, *, json_line: Json = False) -> None:
    """Time our engines and their peers on the same paths, each at the same certified gap.

    Every solve runs in a process of its own; its answers are checked in float64 over all columns.

    Example: `tenfold bench lasso`

    Example: `tenfold bench lasso --data stocknet --alphas 43,1 --ratio 30,20 --peers skglm,celer`

    Example: `tenfold bench lasso --synthetic 100000x3000000 --alphas 30 --ratio 20 --runs 1`
    """
    results = bench_lasso(config)
    if json_line:
        print_json(results)
        return
    print_rows(cells(results))
    for line in results["missing"].values():
        print(line)
    print(f"table and plot: {config.out}/table.md, {config.out}/plot.html")


@app.command("fpcb")
@with_flags_of(FpcbBenchConfig)
def show_bench_fpcb(config: FpcbBenchConfig, *, json_line: Json = False) -> None:
    """Measure panels per CPU second, stage by stage, then whole data sets through Ray.

    The column "practice" is what the tools that this job replaces are reported to do.

    Example: `tenfold bench fpcb`

    Example: `tenfold bench fpcb --whole 100000`
    """
    results = bench_fpcb(config)
    if json_line:
        print_json(results)
        return
    print_rows(results["stages"])
    print_rows(results["whole"])
    print(f"results: {config.out}/results.json")


@app.command("detect")
@with_flags_of(DetectBenchConfig)
def show_bench_detect(config: DetectBenchConfig, *, json_line: Json = False) -> None:
    """Measure training, coresets and nearest neighbours beside their peers, in one run.

    CPU seconds of one thread. A plain greedy coreset takes hours: some of its picks are timed.

    Example: `tenfold bench detect`

    Example: `tenfold bench detect --tables search --bank 20000 --dim 28`
    """
    results = bench_detect(config)
    if json_line:
        print_json(results)
        return
    for name in config.tables:
        print_rows(_same_columns(results[name]))
    print(f"results: {config.out}/results.json")


def _same_columns(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in names} for row in rows]


@root.command("profile")
@with_flags_of(ProfileConfig)
def show_profile(config: ProfileConfig, *, json_line: Json = False) -> None:
    """Measure what tol and workers x threads trade on this machine, and recommend.

    Example: `tenfold profile`

    Example: `tenfold profile --data stocknet --alphas 43 --ratio 30 --layouts 1x1,2x1,1x2`
    """
    results = profile(config)
    if json_line:
        print_json(results)
        return
    print_rows(results["tols"])
    print_rows(
        [
            {
                "layout": f"{row['workers']} x {row['threads']}",
                "tol": row["tol"],
                "wall s": row["wall_seconds"],
                "CPU s a path": row["cpu_seconds_per_path"],
                "paths/s": row["paths_per_s"],
                "GiB each": row["peak_gib_each"],
                "X'r GB/s": row["screen_gb_s"],
                "copy GB/s": row["copy_gb_s"],
            }
            for row in results["layouts"]
        ]
    )
    if results["warning"]:
        print(f"warning: {results['warning']}")
    print(f"{results['recommendation']}\nresults: {config.out}/profile.json")
