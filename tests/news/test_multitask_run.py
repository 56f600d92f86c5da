"""`news fit --multitask`: whole runs through the command on a small market, and its refusals."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from command import tenfold
from sklearn.linear_model import MultiTaskLasso

from actors.lasso.multitask_certificate import certify_multitask
from actors.lasso.multitask_problem import MultiTaskProblem
from cluster.meter import Meter
from cluster.storage import Store
from pipelines.news.config import read_config
from pipelines.news.fitting.multitask import choose_jointly, common_rows
from pipelines.news.prepare import load, prepare
from pipelines.news.synthetic import SyntheticConfig, write_market

TARGETS = ["excess_return", "log_range", "volume_change"]
SMALL = SyntheticConfig(
    documents=900, tickers=12, sessions=60, words=3, planted_per_text=2.0, noise=0.3
)
FIT = ["--folds", 2, "--alphas", 8, "--alpha-ratio", 8, "--ngram-max", 1, "--stretch", 5]


def fit(market, out, *options, targets=TARGETS):
    files = ["--news", market / "news.parquet", "--prices", market / "prices.parquet"]
    return tenfold(
        "news", "fit", *files, "--out", out, "--targets", ",".join(targets), *FIT, "--multitask",
        *options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """A market with some closes and volumes missing, so that targets are missing too."""
    folder = tmp_path_factory.mktemp("joint-market")
    write_market(SMALL, folder)
    prices = pq.read_table(folder / "prices.parquet").to_pandas()
    prices.loc[prices.index % 17 == 3, "volume"] = 0
    prices.to_parquet(folder / "prices.parquet")
    return folder


@pytest.fixture(scope="module")
def run(cluster, market, tmp_path_factory):
    out = tmp_path_factory.mktemp("joint-runs") / "run"
    done = fit(market, out)
    assert done.code == 0, done.err
    return out


@pytest.fixture(scope="module")
def problem(cluster, run):
    store = Store(run)
    config = read_config(store)
    with Meter() as meter:
        return prepare(config, common_rows(load(config, meter)), cluster, store, meter)


def dictionary(run):
    return pd.read_parquet(run / "dictionary.parquet")


def metrics(run):
    return json.loads((run / "metrics.json").read_text())["targets"]


def test_multitask_run_has_one_set_of_ngrams_and_one_alpha(run):
    sets = dictionary(run).groupby("target")["ngram"].agg(set)
    assert list(sets.index) == TARGETS
    assert len(sets.iloc[0]) >= 3
    assert all(words == sets.iloc[0] for words in sets)
    chosen = metrics(run)
    assert len({chosen[target]["alpha"] for target in TARGETS}) == 1
    path = pd.read_parquet(run / "path.parquet")
    assert len(path) == 3 * (2 + 1) * 8
    assert path["gap"].max() <= 1e-6
    error = path.query("fold >= 0").groupby("alpha")["validation_mse"].mean()
    assert error.idxmin() == pytest.approx(chosen["log_range"]["alpha"])


def test_multitask_rows_all_have_every_target(run, problem):
    chosen = metrics(run)
    rows = {chosen[target]["n_rows"] for target in TARGETS}
    assert rows == {len(problem.Y)}
    assert len(problem.Y) < SMALL.documents
    assert np.isfinite(problem.Y).all()
    np.testing.assert_allclose(problem.Y.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(problem.Y.std(axis=0), 1.0)


def weights(run, problem):
    """The dictionary over the solved columns (n_solved, n_targets)."""
    columns = problem.columns
    place = {int(columns.design.columns[at]): i for i, at in enumerate(columns.solved)}
    W = np.zeros((problem.X.shape[1], len(TARGETS)))
    for row in dictionary(run).itertuples():
        W[place[row.column], TARGETS.index(row.target)] = row.coef
    return W


def test_multitask_dictionary_is_the_solution_of_sklearn_and_certified(run, problem):
    chosen = metrics(run)
    alpha = chosen[TARGETS[0]]["alpha"]
    W = weights(run, problem)
    intercepts = np.array([chosen[target]["intercept"] for target in TARGETS])
    joint = MultiTaskProblem(problem.X, problem.Y)
    assert certify_multitask(joint, W, intercepts, alpha).relative_gap <= 1e-6
    model = MultiTaskLasso(alpha=alpha, tol=1e-9, max_iter=50_000).fit(problem.X, problem.Y)
    largest = np.abs(W).max()
    np.testing.assert_allclose(W, model.coef_.T, atol=5e-3 * largest)
    np.testing.assert_allclose(intercepts, model.intercept_, atol=5e-3)


def test_multitask_wide_dictionary_has_a_row_per_ngram_and_a_weight_per_target(run):
    wide = pd.read_parquet(run / "dictionary_wide.parquet")
    long = dictionary(run).pivot(index="ngram", columns="target", values="coef")
    assert list(wide.columns[:4]) == ["ngram", *(f"weight_{target}" for target in TARGETS)]
    assert wide["ngram"].is_unique
    assert set(wide["ngram"]) == set(long.index)
    for target in TARGETS:
        expected = long[target].loc[wide["ngram"]]
        np.testing.assert_array_equal(wide[f"weight_{target}"], expected)
    norms = np.linalg.norm(wide.filter(like="weight_"), axis=1)
    assert (np.diff(norms) <= 0).all()
    text = pd.read_csv(run / "dictionary_wide.csv", keep_default_na=False)
    assert text["ngram"].tolist() == wide["ngram"].tolist()
    assert text["weight_log_range"].tolist() == wide["weight_log_range"].tolist()
    listed = json.loads((run / "manifest.json").read_text())["files"]
    assert {"dictionary_wide.csv", "dictionary_wide.parquet"} <= set(listed)


def test_multitask_run_is_scored_explained_reported_and_compared(run, problem, market, tmp_path):
    files = ["--news", market / "news.parquet", "--out", tmp_path]
    done = tenfold("news", "score", run, *files, "--json").json
    scores = pd.read_parquet(done["scores"]).iloc[problem.observations.doc_first]
    chosen = metrics(run)
    W = weights(run, problem)
    for at, target in enumerate(TARGETS):
        fitted = problem.X @ W[:, at] + chosen[target]["intercept"]
        np.testing.assert_allclose(scores[target], fitted, atol=1e-9)
    word = dictionary(run)["ngram"].iloc[0]
    explained = tenfold("news", "score", run, "--text", word, "--json").json["scores"]
    assert [row["words"][0]["ngram"] for row in explained] == [word] * 3
    page = (run / "report.html").read_text()
    assert all(target in page for target in TARGETS)
    assert word in page
    assert tenfold("news", "diff", run, run, "--json").json["changed"] == 0


def test_multitask_run_is_the_same_when_it_is_resumed(run, market):
    before = (run / "dictionary.parquet").read_bytes()
    done = fit(market, run)
    assert "from an earlier run" in done.err
    assert (run / "dictionary.parquet").read_bytes() == before


def test_multitask_run_is_refused_by_the_audit(run):
    outcome = tenfold("news", "audit", run)
    assert outcome.code == 2
    assert "--multitask" in outcome.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "celer"], "--engine celer"),
        (["--engine", "auto"], "--engine auto"),
        (["--stability", 5], "--stability"),
        (["--early-stop", 0.01], "--early-stop"),
    ],
)
def test_multitask_is_refused_with_what_solves_targets_one_by_one(market, tmp_path, options, said):
    outcome = fit(market, tmp_path / "run", *options)
    assert outcome.code == 2
    assert "--multitask" in outcome.err
    assert said in outcome.err
    assert not (tmp_path / "run").exists()


def test_multitask_is_refused_for_one_target(market, tmp_path):
    outcome = fit(market, tmp_path / "run", targets=TARGETS[:1])
    assert outcome.code == 2
    assert "2 or more targets" in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("rule", "expected"), [("min", 2), ("1se", 1)])
def test_joint_choice_goes_by_the_mean_of_all_targets(rule, expected):
    # Means over targets and folds: 5, 2.1, 2, 3; the standard error at the lowest is 0.5.
    first = np.array([[4.0, 2.0, 1.0, 1.0], [4.0, 2.0, 2.0, 1.0]])
    second = np.array([[6.0, 2.2, 2.0, 5.0], [6.0, 2.2, 3.0, 5.0]])
    choices = choose_jointly([first, second], rule)
    assert [choice.index for choice in choices] == [expected, expected]
    assert choices[1].mse == pytest.approx(second[:, expected].mean())
