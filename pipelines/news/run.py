"""News texts and prices to a sentiment dictionary with proof: the recipe."""

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.connect import connect
from cluster.doctor import PACKAGES
from cluster.fingerprint import fingerprint
from cluster.lock import hold
from cluster.meter import Meter
from cluster.nodes import Cluster
from cluster.run_record import recorded
from cluster.storage import Store
from pipelines.inputs import look_of
from pipelines.news.config import NewsConfig
from pipelines.news.design.naming import name_columns
from pipelines.news.dictionary import dictionary_table, write_dictionary
from pipelines.news.finished import MANIFEST, RESULTS, write_manifest
from pipelines.news.fitting.drop_proof import solve_and_prove
from pipelines.news.fitting.engine import resolve_engine
from pipelines.news.fitting.metrics import score_out_of_fold
from pipelines.news.fitting.multitask import choose_jointly, common_rows, write_wide_dictionary
from pipelines.news.fitting.path import Results, choose_alpha, joined, path_table, units_by_engine
from pipelines.news.fitting.solve import (
    Chosen,
    alpha_grids,
    coefficient_paths,
    dictionary_entries,
    keep_stable,
    out_of_fold,
    refit,
    select_stability,
    solver_code,
)
from pipelines.news.model import write_model
from pipelines.news.prepare import Loaded, load, prepare, say
from pipelines.news.problem import NewsProblem
from pipelines.news.reading.ingest import file_digests, joint_fingerprint, write_rejects
from pipelines.news.report.page import write_report
from pipelines.run_folder import command_of, refuse_package_folder


@dataclass(frozen=True)
class NewsRun:
    """A finished run: its folder and its headline numbers."""

    folder: Store
    metrics: dict[str, Any]


def fit(config: NewsConfig) -> NewsRun:
    """Write the dictionary described by ``config``; finished work is reused.

    Raises
    ------
    InputError
        When the input, an option, the run folder or the cluster cannot be used.
    """
    with Meter() as meter:
        files = file_digests(config.input)
        data = joint_fingerprint(files)
        loaded = load(config, meter)
        if config.path.multitask:
            loaded = common_rows(loaded)
        run = run_folder(config, data)
        command = command_of("news fit", config, out=run)
        looks = {name: look_of(digest) for each in files for name, digest in each.items()}
        with hold(run, wait=config.run.wait), recorded(run, command, looks, meter) as record:
            with connect(config.cluster) as cluster:
                _describe(run, config, data)
                if len(loaded.inputs.rejects):
                    write_rejects(run, loaded.inputs.rejects)
                say(f"{cluster.describe()}\nrun folder {run.uri}")
                metrics = _fit(config, loaded, cluster, run, meter)
            run.write_json("metrics.json", metrics)
            write_report(run)
            source = {"news": config.input.news, "prices": config.input.prices, "hash": data}
            write_manifest(run, source)
            record.known.headline = _headline(metrics)
    return NewsRun(run, metrics)


def _fit(
    config: NewsConfig, loaded: Loaded, cluster: Cluster, run: Store, meter: Meter
) -> dict[str, Any]:
    problem = prepare(config, loaded, cluster, run, meter)
    with meter.stage("engine"):
        choice = resolve_engine(
            config.path,
            problem.X,
            problem.Y,
            problem.roles,
            lambda: alpha_grids(problem, config.path),
            cluster,
            config.run.workers,
            solver_code(),
        )
        if choice.engine != config.path.engine:
            say(choice.describe())
        config = replace(config, path=replace(config.path, engine=choice.engine))
    with meter.stage("path"):
        problem, grids, results = solve_and_prove(problem, config, cluster, run)
        _warn_of_gaps(results, config.path.tol)
    with meter.stage("choose"):
        errors = [_validation_mse(results, problem, target) for target in range(len(grids))]
        if config.path.multitask:
            choices = choose_jointly(errors, config.path.rule)
        else:
            choices = [choose_alpha(own, config.path.rule) for own in errors]
        chosen = refit(problem, results, grids, choices, config.path.stretch)
    stability: Sequence[Any] = [None] * len(grids)
    if config.path.stability:
        with meter.stage("stability"):
            stability = select_stability(
                problem,
                grids,
                chosen,
                config.path,
                config.folds.seed,
                cluster,
                run / "work" / "stability",
                config.run.workers,
            )
            chosen, stability = keep_stable(problem, chosen, stability, config.path.min_stability)
    with meter.stage("results"):
        named = [part for answer in chosen for part in (answer.support, *answer.twins.values())]
        naming = name_columns(problem, named)
        entries = [
            dictionary_entries(problem, naming, target, *answer)
            for target, answer in enumerate(zip(chosen, stability, strict=True))
        ]
        dictionary = dictionary_table(entries)
        write_dictionary(run, dictionary)
        if config.path.multitask:
            write_wide_dictionary(run, dictionary, problem.observations.target_names)
        run.write_table(
            "path.parquet",
            path_table(results, problem.observations.target_names, problem.n_folds),
        )
        run.write_table(
            "coef_path.parquet",
            coefficient_paths(problem, naming, results, grids, chosen, config.path.stretch),
        )
        scores = _score(config, run, problem, results, grids, chosen)
        write_model(run, config, problem, chosen)
    return {
        "targets": scores,
        **_numbers(problem),
        "stages": meter.table(),
        "engine": config.path.engine,
        "engine_choice": choice.as_json(),
        "units": units_by_engine(results),
        "tol": config.path.tol,
        "cluster": "; ".join(node.describe() for node in cluster.nodes),
        "total_seconds": meter.total_seconds,
        "peak_gib": meter.peak_gib,
    }


def _headline(metrics: dict[str, Any]) -> str:
    """Return in one line what the first target came to."""
    name, first = next(iter(metrics["targets"].items()))
    more = len(metrics["targets"]) - 1
    rank_ic = "undefined" if first["rank_ic"] is None else f"{first['rank_ic']:.3f}"
    return f"{name}: {first['nonzeros']} words, rank IC {rank_ic}" + (
        f"; {more} more target{'s' * (more > 1)}" if more else ""
    )


def run_folder(config: NewsConfig, data: str) -> Store:
    """Return where the run is kept: as asked for, or named by its options and data."""
    refuse_package_folder(config.run.out)
    options = {name: part for name, part in asdict(config).items() if name not in _NOT_RESULTS}
    return Store(config.run.out or f"runs/news-{fingerprint(options, data)[:10]}")


def _describe(run: Store, config: NewsConfig, data: str) -> None:
    """Write the full configuration, versions, seed and fingerprint of the data.

    What an earlier run left here goes; the manifest comes back when this one is whole.
    """
    for name in (MANIFEST, *RESULTS):
        run.delete(name)
    versions = {name: version(name) for name in PACKAGES}
    run.write_json(
        "config.json",
        asdict(config)
        | {
            "versions": versions | {"python": platform.python_version()},
            "seed": config.folds.seed,
            "fingerprints": {"input": data},
        },
    )


# Where and by how many a run is solved does not change what it finds.
_NOT_RESULTS = ("cluster", "run")


def _warn_of_gaps(results: Results, tol: float) -> None:
    """Say on stderr how many answers miss the tolerance; the report names them."""
    gaps = np.concatenate([result["gaps"] for result in results.values()])
    missed = int(np.count_nonzero(gaps > tol))
    if missed:
        say(
            f"warning: {missed} of {gaps.size} answers miss --tol {tol:.0e} (largest gap "
            f"{gaps.max():.0e}). Loosen --tol, lower --alpha-ratio, or use --engine newton."
        )


def _validation_mse(results: Results, problem: NewsProblem, target: int) -> np.ndarray:
    return np.stack(
        [joined(results, target, fold, "validation_mse") for fold in range(problem.n_folds)]
    )


def _score(
    config: NewsConfig,
    run: Store,
    problem: NewsProblem,
    results: Results,
    grids: Sequence[np.ndarray],
    chosen: Sequence[Chosen],
) -> dict[str, Any]:
    """Return the metrics of each target; write the daily information coefficients."""
    scores, daily_tables = {}, []
    names = problem.observations.target_names
    for target, (name, answer) in enumerate(zip(names, chosen, strict=True)):
        rows = out_of_fold(problem, results, target, answer.choice.index, config.path.stretch)
        metrics, daily = score_out_of_fold(rows)
        gaps = [joined(results, target, fold, "gaps").max() for fold in range(problem.n_folds + 1)]
        scores[name] = metrics | {
            "alpha": answer.alpha,
            "alpha_max": float(grids[target][0]),
            "rule": config.path.rule,
            "cv_mse": answer.choice.mse,
            "cv_standard_error": answer.choice.standard_error,
            "nonzeros": int(answer.support.size),
            "unstable": answer.unstable,
            "gap": answer.gap,
            "largest_gap": float(max(gaps)),
            "n_rows": int(np.isfinite(problem.Y[:, target]).sum()),
            "n_out_of_fold": int(rows.row.size),
            "intercept": answer.intercept,
            "mean": float(problem.mean[target]),
            "std": float(problem.std[target]),
        }
        dates = problem.observations.session_dates[daily["session"].to_numpy(dtype=np.int64)]
        daily_tables.append(
            pa.table(
                {
                    "target": pa.array([name] * len(daily), pa.string()),
                    "session": pa.array(dates, pa.date32()),
                    "ic": daily["ic"].to_numpy(dtype=np.float64),
                    "rank_ic": daily["rank_ic"].to_numpy(dtype=np.float64),
                    "n": daily["n"].to_numpy(dtype=np.int64),
                }
            )
        )
    run.write_table("daily_ic.parquet", pa.concat_tables(daily_tables))
    return scores


def _numbers(problem: NewsProblem) -> dict[str, Any]:
    """Return the counts of the corpus and of the matrix."""
    observations, X = problem.observations, problem.X
    present = np.unique(observations.session)
    _, copies = np.unique(problem.text_group, return_counts=True)
    size = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    return {
        "corpus": {
            "documents": problem.inputs.news.num_rows,
            "observations": len(observations),
            "dropped": observations.dropped,
            "rejected": len(problem.inputs.rejects),
            "repeated": int((copies - 1).sum()),
            "tickers": int(np.unique(observations.ticker).size),
            "sessions": int(present.size),
            "first_session": str(observations.session_dates[present[0]]),
            "last_session": str(observations.session_dates[present[-1]]),
        },
        "matrix": {
            "rows": X.shape[0],
            "ngrams": problem.columns.known.columns.size,
            "dropped_early": problem.columns.known.columns.size - problem.columns.design.X.shape[1],
            "saved_gib": (problem.aside.saved_bytes if problem.aside else 0) / 2**30,
            "columns": X.shape[1],
            "twins": problem.columns.design.X.shape[1] - problem.columns.twins.kept.size,
            "nonzeros": int(X.nnz),
            "gib": size / 2**30,
        },
    }
