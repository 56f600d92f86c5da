"""Do the engines agree? The same problems, solved by each, certified by one independent check."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.lasso.actor import worker_factory
from actors.lasso.certificate import certify
from actors.lasso.engines import DEVICE_ENGINES, ENGINES
from actors.lasso.newton import NewtonEngine
from actors.lasso.problem import LassoProblem
from actors.lasso.screening import gap_safe_columns
from actors.lasso.unit import TRAIN, coefficients
from cluster.connect import ClusterConfig, connect
from cluster.errors import InputError
from cluster.fingerprint import fingerprint
from cluster.lock import hold
from cluster.meter import Meter
from cluster.nodes import Cluster
from cluster.storage import Store
from cluster.units import Unit, solve_units
from pipelines.news.config import NewsConfig, read_config
from pipelines.news.design.twins import merge_weights
from pipelines.news.finished import require_finished
from pipelines.news.fitting.solve import matrix_digest, on_fold, solver_code, twins_of_target
from pipelines.news.prepare import load, prepare, say
from pipelines.news.problem import NewsProblem
from pipelines.news.reading.ingest import input_fingerprint

# The promise: engines differ by no more than this share of the largest coefficient.
COEFFICIENT_LIMIT = 1e-4
GAP_LIMIT = 1e-6


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """What is audited, and how tightly."""

    engines: tuple[str, ...] = field(
        default=(), metadata={"help": "Engines to compare; default: those of the CPU."}
    )
    ratios: tuple[float, ...] = field(
        default=(),
        metadata={"help": "Audit at alpha_max / RATIO instead of the chosen alphas, e.g. 5,10."},
    )
    audit_tol: float = field(
        default=1e-10,
        metadata={
            "help": "Relative gap each engine is asked for; coefficients agree to its square root."
        },
    )
    full_matrix: bool = field(
        default=False,
        metadata={"help": "Give engines every column, not only those that a gap-safe rule leaves."},
    )
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        known = (*ENGINES, *DEVICE_ENGINES)
        unknown = sorted(set(self.engines) - set(known))
        if unknown:
            raise InputError("--engines", "unknown", ", ".join(known), unknown[0])
        if any(not ratio >= 1 for ratio in self.ratios):
            raise InputError("--ratios", "below 1", "numbers of 1 or more", self.ratios)
        if not 0 < self.audit_tol < 1:
            raise InputError("--audit-tol", "out of range", "between 0 and 1", self.audit_tol)


def audit(folder: str, config: AuditConfig) -> dict[str, Any]:
    """Solve the run's problems on every engine and compare; writes ``audit.json`` and ``.parquet``.

    Each engine gets the same targets on all rows. Columns that a gap-safe rule proves to be zero
    are kept from the engines (unless ``full_matrix``); the certificate is over all columns, those
    dropped early from the run's matrix too.

    Raises
    ------
    InputError
        When the folder holds no finished run, or its input is gone or has changed.
    """
    run = Store(folder)
    saved, alphas = _finished(run)
    _require_same_input(run, saved)
    engines = config.engines or tuple(name for name in ENGINES if _present(name))
    with hold(run), Meter() as meter:
        loaded = load(saved, meter)
        with connect(config.cluster) as cluster:
            say(cluster.describe())
            everything = replace(saved, design=replace(saved.design, early_drop="off"))
            problem = prepare(everything, loaded, cluster, run, meter)
            cases = _cases(problem, alphas, config)
            rows = _compare(problem, cases, engines, config, cluster, run)
        run.write_table("audit.parquet", pa.Table.from_pylist(rows))
        summary = _summary(rows)
        run.write_json("audit.json", summary)
    return {**summary, "rows": rows}


def _finished(run: Store) -> tuple[NewsConfig, dict[str, float]]:
    require_finished(run, "config.json", "metrics.json")
    targets = run.read_json("metrics.json")["targets"]
    config = read_config(run)
    if config.path.multitask:
        raise InputError(
            run.uri,
            "fitted with --multitask, which one engine alone solves",
            expected="a run of single targets",
            fix="Every answer of it has its certificate in path.parquet.",
        )
    return config, {name: part["alpha"] for name, part in targets.items()}


def _require_same_input(run: Store, saved: NewsConfig) -> None:
    fitted_to = run.read_json("config.json")["fingerprints"]["input"]
    if fitted_to != input_fingerprint(saved.input):
        raise InputError(
            f"{saved.input.news}, {saved.input.prices}",
            f"not what {run} was fitted to",
            fix="Bring those files back, or fit again.",
        )


def _present(engine: str) -> bool:
    package = {"celer": "celer", "sklearn": "sklearn"}.get(engine)
    return package is None or importlib.util.find_spec(package) is not None


@dataclass(frozen=True)
class _Case:
    """One target at one alpha, on all rows."""

    target: int
    alpha: float

    @property
    def key(self) -> str:
        return f"t{self.target:02d}-{self.alpha:.9e}"


def _cases(problem: NewsProblem, alphas: dict[str, float], config: AuditConfig) -> list[_Case]:
    cases = []
    for target, name in enumerate(problem.observations.target_names):
        alpha_max = on_fold(problem, target, problem.n_folds).alpha_max()
        ladder = [alpha_max / ratio for ratio in config.ratios] or [alphas[name]]
        cases += [_Case(target, alpha) for alpha in ladder]
    return cases


def _compare(
    news: NewsProblem,
    cases: Sequence[_Case],
    engines: Sequence[str],
    config: AuditConfig,
    cluster: Cluster,
    run: Store,
) -> list[dict[str, Any]]:
    """Solve every case on each engine; return a row per case and engine."""
    kept = np.arange(news.X.shape[1])
    if not config.full_matrix:
        possible = [
            _possible_columns(
                on_fold(news, case.target, news.n_folds), case.alpha, config.audit_tol
            )
            for case in cases
        ]
        kept = np.unique(np.concatenate(possible))
    X = news.X[:, kept] if kept.size else news.X[:, :1]
    roles = np.full((1, X.shape[0]), TRAIN, dtype=np.int8)
    twins = {target: twins_of_target(news, target) for target in {case.target for case in cases}}
    rows: list[dict[str, Any]] = []
    references: dict[str, npt.NDArray[np.float64]] = {}
    for engine in engines:
        answers = solve_units(
            cluster,
            worker_factory(X, news.Y, roles, engine=engine),
            [
                Unit(
                    key=f"{engine}-{case.key}",
                    payload={
                        "target": case.target,
                        "fold": 0,
                        "alphas": [case.alpha],
                        "tol": config.audit_tol,
                    },
                )
                for case in cases
            ],
            run / "work" / "audit",
            workers=min(len(cases), cluster.cores),
            fingerprint=fingerprint(matrix_digest(X), news.Y, config.audit_tol, solver_code()),
            label=f"audit {engine}",
        )
        for case in cases:
            answer = answers[f"{engine}-{case.key}"]
            problem = on_fold(news, case.target, news.n_folds)
            coef = np.zeros(news.X.shape[1])
            coef[kept] = coefficients(answer, X.shape[1]).toarray().ravel()[: kept.size]
            proof = certify(problem, coef, float(answer["intercepts"][0]), case.alpha)
            support = np.flatnonzero(coef)
            owners, values = merge_weights(twins[case.target], support, coef[support])
            merged = np.zeros(coef.size)
            merged[owners] = values
            reference = references.setdefault(case.key, merged)
            rows.append(
                {
                    "target": news.observations.target_names[case.target],
                    "alpha": case.alpha,
                    "engine": engine,
                    "gap": proof.relative_gap,
                    "words": int(np.count_nonzero(merged)),
                    "columns": int(X.shape[1]),
                    "seconds": float(answer["seconds"].sum()),
                    **_difference(reference, merged),
                }
            )
    return sorted(rows, key=lambda row: (row["target"], -row["alpha"]))


def _possible_columns(problem: LassoProblem, alpha: float, tol: float) -> npt.NDArray[np.int64]:
    """Return the columns that no gap-safe rule excludes at ``alpha``."""
    found = NewtonEngine().solve_path(problem, [alpha], tol=tol)
    answer = found.coefs[:, [-1]]
    return gap_safe_columns(problem, answer.indices.astype(np.int64), answer.data, alpha)


def _difference(reference: npt.NDArray[np.float64], coef: npt.NDArray[np.float64]) -> dict:
    """Compare with the first engine; a word counts when it exceeds the promised difference."""
    largest = max(float(np.abs(reference).max(initial=0.0)), 1e-300)
    left = np.abs(reference) > COEFFICIENT_LIMIT * largest
    right = np.abs(coef) > COEFFICIENT_LIMIT * largest
    either = np.count_nonzero(left | right)
    return {
        "coefficient_difference": float(np.abs(reference - coef).max(initial=0.0)) / largest,
        "support_overlap": np.count_nonzero(left & right) / either if either else 1.0,
        "same_nonzeros": bool(((reference != 0) == (coef != 0)).all()),
    }


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    worst = {
        "largest_gap": max(row["gap"] for row in rows),
        "largest_coefficient_difference": max(row["coefficient_difference"] for row in rows),
        "smallest_support_overlap": min(row["support_overlap"] for row in rows),
    }
    agree = bool(
        worst["largest_gap"] <= GAP_LIMIT
        and worst["largest_coefficient_difference"] <= COEFFICIENT_LIMIT
        and worst["smallest_support_overlap"] == 1.0
    )
    return {"agree": agree, **worst}
