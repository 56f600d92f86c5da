"""`tenfold fpcb`: the commands of the fpcb job."""

from typing import Annotated, Any

import typer

from pipelines.flags import with_flags_of
from pipelines.fpcb.config import ExportJob, FeatureJob, GenerateJob, ImportJob
from pipelines.fpcb.dataset import FEATURES, PANELS, UNKNOWN, DataSet
from pipelines.fpcb.detection.config import RunJob, ScoreJob, TrainJob
from pipelines.fpcb.exchange import export_data, import_data
from pipelines.fpcb.generate import generate_panels
from pipelines.fpcb.make_features import make_features
from pipelines.fpcb.population import SPLITS
from pipelines.terminal import Json, group, print_json, print_rows

app = group("Bending trajectories of circuit boards to cracked panels.")

_GIB = 1 << 30


@app.command("generate")
@with_flags_of(GenerateJob)
def fpcb_generate(config: GenerateJob, *, json_line: Json = False) -> None:
    """Make synthetic panels with known truth, and keep their points.

    Run the same command again to resume: finished shards are not made again.

    Example: `tenfold fpcb generate --panels 10000 --out data/panels`

    Example: `tenfold fpcb generate --panels 500 --scenario kink --kink-deg 2 --out data/kinks`
    """
    _show(generate_panels(config), PANELS, json_line)


@app.command("features")
@with_flags_of(FeatureJob)
def fpcb_features(
    config: FeatureJob,
    *,
    source: Annotated[
        list[str] | None,
        typer.Argument(
            help="A data set with points, or bundles; without it panels are generated.",
            show_default=False,
        ),
    ] = None,
    json_line: Json = False,
) -> None:
    """Measure panels: features per frame, per panel, and frame x place maps.

    Without a source, panels are generated and measured in one go, and no points are kept.

    Example: `tenfold fpcb features --panels 100000 --out data/features`

    Example: `tenfold fpcb features data/panels`

    Example: `tenfold fpcb features measured/monday measured/tuesday --out data/measured`
    """
    _show(make_features(config, source or []), FEATURES, json_line)


@app.command("import")
@with_flags_of(ImportJob)
def fpcb_import(
    config: ImportJob,
    *,
    folders: Annotated[
        list[str], typer.Argument(help="Bundles, or folders of them.", show_default=False)
    ],
    json_line: Json = False,
) -> None:
    """Read panel bundles (frame_00000.txt ..., fps.txt) into a data set.

    Bundles that cannot be read are listed in rejects.csv with file, line and reason.

    Example: `tenfold fpcb import measured --out data/measured`

    Example: `tenfold fpcb import measured --labels labels.csv --bundle-fps 30 --out data/measured`
    """
    _show(import_data(config, folders), PANELS, json_line)


@app.command("export")
@with_flags_of(ExportJob)
def fpcb_export(
    config: ExportJob,
    *,
    data: Annotated[str, typer.Argument(help="A data set with points.", show_default=False)],
    json_line: Json = False,
) -> None:
    """Write the panels of a data set as bundles, a folder each.

    Example: `tenfold fpcb export data/panels --out bundles`
    """
    result = export_data(config, data)
    if json_line:
        print_json(result)
    else:
        print(f"{result['bundles']:,} bundles: {result['folder']}")


@app.command("train")
@with_flags_of(TrainJob)
def fpcb_train(
    config: TrainJob,
    *,
    data: Annotated[str, typer.Argument(help="A data set with features.", show_default=False)],
    json_line: Json = False,
) -> None:
    """Train DREAM and PatchCore on good panels; learn from validation panels what is called NG.

    Run the same command again to resume: finished epochs and shards are kept.

    Example: `tenfold fpcb train data/features --out runs/line-3`

    Example: `tenfold fpcb train data/features --detectors patchcore --false-alarms 0.001`
    """
    from pipelines.fpcb.run import train  # faiss and evaluation take seconds to load

    _show_run(train(config, data), json_line)


@app.command("score")
@with_flags_of(ScoreJob)
def fpcb_score(
    config: ScoreJob,
    *,
    run: Annotated[str, typer.Argument(help="Run folder of train or run.", show_default=False)],
    sources: Annotated[
        list[str],
        typer.Argument(help="A data set, or bundles, or folders of them.", show_default=False),
    ],
    json_line: Json = False,
) -> None:
    """Score panels with trained detectors: a row a panel, with when and where it cracked.

    Bundles that cannot be read are listed in rejects.csv with file, line and reason.

    Example: `tenfold fpcb score runs/line-3 measured/monday --out scores/monday`

    Example: `tenfold fpcb score runs/line-3 data/features --out scores/all --format csv`
    """
    from pipelines.fpcb.score import score

    out, rows = score(config, run, sources)
    called = int(rows["called_ng"].to_numpy().sum())
    if json_line:
        print_json({"scores": out.uri, "panels": len(rows), "called_ng": called})
        return
    print(f"{len(rows):,} panels, {called:,} called NG\nscores: {out.uri}")


@app.command("run")
@with_flags_of(RunJob)
def fpcb_run(
    config: RunJob,
    *,
    data: Annotated[
        str | None,
        typer.Argument(
            help="A data set with features; without it panels are generated.", show_default=False
        ),
    ] = None,
    json_line: Json = False,
) -> None:
    """Do the whole job: panels, features, detectors, a scored and explained test set, a report.

    Run the same command again to resume: finished epochs and shards are kept.

    Example: `tenfold fpcb run --panels 10000 --out runs/first`

    Example: `tenfold fpcb run data/measured --out runs/line-3`
    """
    from pipelines.fpcb.run import run

    _show_run(run(config, data), json_line)


@app.command("report")
def fpcb_report(
    data: Annotated[str, typer.Argument(help="A data set.", show_default=False)],
    *,
    json_line: Json = False,
) -> None:
    """Write quality.html into a data set: classes, panels to look at, distributions, checks.

    Example: `tenfold fpcb report data/panels`
    """
    from pipelines.fpcb.quality.page import write_quality  # plots take a second to load

    numbers = write_quality(data)
    if json_line:
        print_json(numbers)
        return
    marks = {True: "sound", False: "look", None: "note"}
    for check in numbers["checks"]:
        print(f"{marks[check['sound']]:5}  {check['name']}: {check['text']}")
    print(f"report: {numbers['report']}")


def _show_run(done: Any, json_line: bool) -> None:
    metrics, folder = done.metrics, done.folder.uri
    if json_line:
        print_json({"run": folder, **metrics})
        return
    test = metrics.get("test")
    if test is not None:
        print_rows(_detector_rows(test))
        print_rows(_called_rows(test))
    threshold = metrics["decision"]["thresholds"]["ensemble"]
    print(
        f"threshold: above it were {threshold['got']:.2%} of {threshold['n_good']:,} good "
        f"validation panels\nrun: {folder}"
    )
    if test is not None:
        print(f"report: {folder}/report.html")


def _detector_rows(test: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a cracked scenario: PR AUC of each detector and baseline."""
    return [
        {"PR AUC": scenario}
        | {
            name: f"{one['cracked'][scenario]['pr_auc']['value']:.4f}"
            for name, one in test["detectors"].items()
        }
        for scenario in next(iter(test["detectors"].values()))["cracked"]
    ]


def _called_rows(test: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a scenario: how many panels the ensemble calls NG, and when and where."""
    rows = []
    for one in test["detectors"]["ensemble"]["confusion"]["scenarios"]:
        off = (test["found"] or {}).get(one["scenario"])
        frame, place = (off[name]["median_error"]["value"] if off else None
                        for name in ("frame", "place"))  # fmt: skip
        rows.append(
            {
                "scenario": one["scenario"],
                "panels": one["n"],
                "called NG": one["n_called_ng"],
                "frames off": None if frame is None else f"{frame:g}",
                "place off": None if place is None else f"{place:.2%}",
            }
        )
    return rows


def _show(data: DataSet, part: str, json_line: bool) -> None:
    about: dict[str, Any] = dict(data.about)
    if json_line:
        files = about.pop(part)
        print_json(
            {
                "data": data.store.uri,
                "panels": data.n_panels,
                "counts": about["counts"],
                "rejected": about.get("rejected", 0),
                "digest": files["digest"],
                "bytes": files["bytes"],
                "files": len(files["files"]),
            }
        )
        return
    rows: dict[str, dict[str, Any]] = {}
    for name, count in about["counts"].items():
        split, scenario = name.split("/")
        rows.setdefault(scenario, {"scenario": scenario})[split] = count
    splits = sorted({name.split("/")[0] for name in about["counts"]}, key=_SPLIT_ORDER.index)
    print_rows([{"scenario": k, **{s: row.get(s, 0) for s in splits}} for k, row in rows.items()])
    files = about[part]
    print(
        f"{data.n_panels:,} panels, {about.get('rejected', 0):,} rejected · "
        f"{len(files['files']):,} files, {files['bytes'] / _GIB:.2f} GiB\n"
        f"digest: {files['digest']}\ndata: {data.store.uri}"
    )


_SPLIT_ORDER = [*SPLITS, UNKNOWN]
