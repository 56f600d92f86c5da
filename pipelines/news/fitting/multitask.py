"""All targets at once: one set of n-grams, one alpha, and a weight of each n-gram per target."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from actors.lasso.multitask_problem import MultiTaskProblem
from actors.lasso.multitask_unit import target_result
from actors.lasso.unit import TRAIN
from cluster.errors import InputError
from cluster.storage import Store
from cluster.units import Unit
from pipelines.news.dictionary import dictionary_csv
from pipelines.news.fitting.folds import require_rows
from pipelines.news.fitting.path import Choice, PathConfig, Results, choose_alpha, unit_key
from pipelines.news.prepare import Loaded, say, text_groups
from pipelines.news.problem import NewsProblem

FloatArray = npt.NDArray[np.float64]

WIDE = "dictionary_wide"


def common_rows(loaded: Loaded) -> Loaded:
    """Leave out the observations that lack a target.

    Raises
    ------
    InputError
        When there is one target only, or a fold is left without data.
    """
    observed = loaded.observations
    names = observed.target_names
    if len(names) < 2:
        raise InputError(
            "--multitask",
            "one target shares its n-grams with no other",
            expected="2 or more targets",
            got=", ".join(names),
            fix="Name more --targets, or leave --multitask out.",
        )
    kept = np.isfinite(observed.Y).all(axis=1)
    left_out = int(np.count_nonzero(~kept))
    if not left_out:
        return loaded
    for fold, roles in enumerate(loaded.roles[:-1]):
        require_rows(roles[kept], fold)
    say(f"--multitask: {left_out:,} observations that lack a target are left out")
    text = observed.text.filter(pa.array(kept))
    return replace(
        loaded,
        observations=replace(
            observed,
            text=text,
            ticker=observed.ticker[kept],
            session=observed.session[kept],
            doc_first=observed.doc_first[kept],
            Y=observed.Y[kept],
            dropped=observed.dropped | {"not every target": left_out},
        ),
        features=loaded.features[kept],
        text_group=text_groups(text),
        roles=np.ascontiguousarray(loaded.roles[:, kept]),
    )


def joint_grids(problem: NewsProblem, config: PathConfig) -> list[FloatArray]:
    """Return the alphas, which all targets and folds share, once for each target."""
    highest = [
        MultiTaskProblem(problem.X, problem.Y, roles == TRAIN).alpha_max()
        for roles in problem.roles
    ]
    return [config.grid(highest[-1], max(highest))] * problem.Y.shape[1]


def plan_joint_units(grids: Sequence[FloatArray], n_folds: int, config: PathConfig) -> list[Unit]:
    """Cut the path of each fold into stretches, each on all targets."""
    alphas, targets = grids[0], list(range(len(grids)))
    return [
        Unit(
            key=_joint_key(fold, start),
            payload={
                "target": targets,
                "fold": fold,
                "alphas": alphas[start : start + config.stretch],
                "tol": config.tol,
            },
            after=_joint_key(fold, start - config.stretch) if start else None,
        )
        for fold in range(n_folds + 1)
        for start in range(0, alphas.size, config.stretch)
    ]


def _joint_key(fold: int, start: int) -> str:
    return f"all-f{fold:03d}-a{start:04d}"


def by_target(results: Results) -> Results:
    """Return results on all targets as those of single targets, under their `unit_key`."""
    single: dict[str, Mapping[str, np.ndarray]] = {}
    for key, result in results.items():
        _, fold, start = key.split("-")
        for target in range(result["intercepts"].shape[1]):
            single[unit_key(target, int(fold[1:]), int(start[1:]))] = target_result(result, target)
    return single


def choose_jointly(errors: Sequence[FloatArray], rule: str) -> list[Choice]:
    """Choose one alpha by the mean of the targets' validation errors (n_folds, n_alphas) each.

    Targets are standardised, so their errors are on one scale. Each target's choice holds its own
    error at that alpha.
    """
    index = choose_alpha(np.mean(errors, axis=0), rule).index
    return [replace(choose_alpha(own[:, [index]], "min"), index=index) for own in errors]


def wide_dictionary(dictionary: pa.Table, targets: Sequence[str]) -> pa.Table:
    """Return a row per n-gram with ``weight_<target>`` columns, the largest norm of weights first.

    Parameters
    ----------
    dictionary : pa.Table
        With the same n-grams for every target, as a multi-task solution has them.
    """
    parts = [dictionary.filter(pc.equal(dictionary["target"], name)) for name in targets]
    parts = [part.take(pc.sort_indices(part["column"])) for part in parts]
    weights = np.column_stack([part["coef"].to_numpy() for part in parts])
    order = pa.array(np.argsort(-np.linalg.norm(weights, axis=1), kind="stable"))
    columns = {"ngram": parts[0]["ngram"]}
    columns |= {f"weight_{name}": pa.array(w) for name, w in zip(targets, weights.T, strict=True)}
    columns |= {name: parts[0][name] for name in ("df", "aliases", "gap", "column")}
    return pa.table(columns).take(order)


def write_wide_dictionary(run: Store, dictionary: pa.Table, targets: Sequence[str]) -> None:
    """Write ``dictionary_wide.parquet`` and ``.csv`` (aliases joined by " | ")."""
    table = wide_dictionary(dictionary, targets)
    run.write_table(f"{WIDE}.parquet", table)
    run.write_bytes(f"{WIDE}.csv", dictionary_csv(table))
