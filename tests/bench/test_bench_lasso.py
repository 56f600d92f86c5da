"""`tenfold bench lasso`: every solver has its row, every answer its certificate."""

import csv
import json

import numpy as np
import pytest
import scipy.sparse as sp
from command import tenfold
from sklearn.linear_model import Lasso, MultiTaskLasso

from pipelines.bench.config import Work
from pipelines.bench.measure import Judge
from pipelines.bench.problems import SavedProblem
from pipelines.bench.saved import load_answers, save_problem
from pipelines.bench.solvers import OWN, PEERS, Solver
from pipelines.bench.synthetic import text_problem

SMALL = ("bench", "lasso", "--synthetic", "300x800", "--runs", 1)
ROW = {
    "work", "solver", "status", "reason", "tol", "gap", "nonzeros", "cpu_seconds", "wall_seconds",
    "peak_gib", "runs", "ratio", "at_least", "tries",
}  # fmt: skip


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    folder = tmp_path_factory.mktemp("problem")
    X, y = text_problem(300, 800)
    save_problem(folder, X, y)
    alpha_max = np.abs(X.T @ (y - y.mean())).max() / y.size
    return SavedProblem(folder, "synthetic", *X.shape, int(X.nnz), float(alpha_max)), X, y


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "out"
    work = ("--alphas", "3,1", "--ratio", "4,3", "--peers", "sklearn,adelie", "--curve", "")
    outcome = tenfold(*SMALL, *work, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    return outcome.json, out


def test_every_solver_has_a_certified_row_for_every_work(compared):
    results, _ = compared
    assert [(row["work"], row["solver"]) for row in results["rows"]] == [
        ("3 alphas to alpha_max/4", "newton"),
        ("3 alphas to alpha_max/4", "sklearn"),
        ("one fit at alpha_max/3", "newton"),
        ("one fit at alpha_max/3", "sklearn"),
    ]
    for row in results["rows"]:
        assert set(row) == ROW
        assert row["status"] == "met"
        assert 0 <= row["gap"] <= 1e-6
        assert row["nonzeros"] > 0
        assert row["cpu_seconds"] > 0
        assert row["peak_gib"] > 0
        assert [t["tol"] for t in row["tries"]] == [1e-6]
    assert results["rows"][0]["ratio"] == 1.0
    assert len({row["nonzeros"] for row in results["rows"][:2]}) == 1


def test_files_hold_what_the_command_prints(compared):
    results, out = compared
    assert json.loads((out / "results.json").read_text()) == results
    with (out / "table.csv").open() as file:
        assert [row["solver"] for row in csv.DictReader(file)] == ["newton", "sklearn"] * 2
    table = (out / "table.md").read_text()
    assert table.count("| newton |") == table.count("| sklearn |") == 2
    page = (out / "plot.html").read_text()
    assert "one fit at alpha_max" in page
    assert "src=" not in page.partition("<body>")[0]
    assert not list(out.glob("problem-*"))


@pytest.mark.long
def test_interrupted_bench_measures_only_what_is_missing(compared, tmp_path):
    left = json.loads((compared[1] / "results.json").read_text())
    left |= {"finished": False, "rows": left["rows"][:3]}
    left["rows"][1]["cpu_seconds"] = 1234.5
    (tmp_path / "results.json").write_text(json.dumps(left))
    work = ("--alphas", "3,1", "--ratio", "4,3", "--peers", "sklearn", "--curve", "")
    outcome = tenfold(*SMALL, *work, "--out", tmp_path, "--json")
    assert outcome.json["rows"][1]["cpu_seconds"] == 1234.5
    assert [row["solver"] for row in outcome.json["rows"]] == ["newton", "sklearn"] * 2
    assert outcome.err.count("from an earlier run") == 3
    again = tenfold(*SMALL, *work, "--out", tmp_path, "--json")
    assert "from an earlier run" not in again.err


def test_answers_are_those_of_the_problem(problem):
    saved, X, y = problem
    alphas = Work(3, 5.0).alphas(saved.alpha_max)
    judge = Judge(saved, 60.0)
    found = judge.attempt(OWN["newton"], alphas, 1e-12)
    coefs, intercepts = load_answers(judge.answers)
    assert found.gap <= 1e-12
    for i, alpha in enumerate(alphas):
        oracle = Lasso(alpha=alpha, tol=1e-14, max_iter=100_000).fit(X.toarray(), y)
        np.testing.assert_allclose(coefs[:, [i]].toarray().ravel(), oracle.coef_, atol=1e-5)
        np.testing.assert_allclose(intercepts[i], oracle.intercept_, atol=1e-6)
    assert found.nonzeros == np.count_nonzero(oracle.coef_)


def test_gap_of_a_loose_answer_is_reported_as_it_is(problem):
    saved, _, _ = problem
    alphas = Work(1, 10.0).alphas(saved.alpha_max)
    loose = Judge(saved, 60.0).attempt(PEERS["sklearn"], alphas, 1e-2)
    assert 1e-6 < loose.gap <= 1e-2


def test_solver_that_runs_out_of_time_has_its_row(tmp_path):
    flags = ("--alphas", 30, "--ratio", 1e6, "--tol", 1e-14, "--timeout", 0.05, "--peers", "none")
    outcome = tenfold(*SMALL, *flags, "--curve", "", "--out", tmp_path, "--json")
    assert outcome.code == 0, outcome.err
    (row,) = outcome.json["rows"]
    assert row["status"] == "timed out"
    assert row["reason"] == "no answer after 0.05 CPU s"
    assert row["at_least"]
    assert 0 < row["cpu_seconds"] < 5
    assert "timed out: no answer after 0.05 CPU s" in (tmp_path / "table.md").read_text()


def test_solver_that_fails_has_its_reason(problem):
    saved, _, _ = problem
    absent = Solver("nowhere", OWN["newton"].solve)
    found = Judge(saved, 60.0).attempt(absent, np.array([saved.alpha_max]), 1e-6)
    assert (found.status, found.gap) == ("failed", None)
    assert "nowhere" in found.reason


def test_missing_peer_is_listed_with_its_remedy(compared):
    results, out = compared
    assert list(results["missing"]) == ["adelie"]
    assert "adelie is not installed: it needs numpy < 2" in (out / "table.md").read_text()


def test_own_matrix_is_measured_without_the_rows_that_have_no_response(tmp_path):
    X, y = text_problem(200, 300)
    y[::10] = np.nan
    sp.save_npz(tmp_path / "X.npz", X)
    np.save(tmp_path / "y.npy", y)
    files = ("--matrix", tmp_path / "X.npz", "--y", tmp_path / "y.npy", "--peers", "none")
    outcome = tenfold(
        "bench", "lasso", *files, "--alphas", 2, "--runs", 2, "--out", tmp_path / "o", "--json"
    )
    assert outcome.code == 0, outcome.err
    assert outcome.json["problem"]["rows"] == 180
    assert outcome.json["rows"][0]["runs"] == 2


def test_several_targets_are_solved_jointly(tmp_path):
    X, y = text_problem(200, 300)
    Y = np.column_stack((y, np.roll(y, 1) + 2 * y))
    sp.save_npz(tmp_path / "X.npz", X)
    np.save(tmp_path / "Y.npy", Y)
    files = ("--matrix", tmp_path / "X.npz", "--y", tmp_path / "Y.npy")
    peers = ("--peers", "sklearn,celer", "--curve", "", "--alphas", 3, "--ratio", 4)
    outcome = tenfold(
        "bench", "lasso", *files, *peers, "--runs", 1, "--out", tmp_path / "o", "--json"
    )
    assert outcome.code == 0, outcome.err
    assert outcome.json["problem"]["targets"] == 2
    assert "no multi-task Lasso" in outcome.json["missing"]["celer"]
    newton, sklearn = outcome.json["rows"]
    assert newton["gap"] <= 1e-6
    assert sklearn["gap"] <= 1e-6
    largest = np.linalg.norm(X.T @ (Y - Y.mean(axis=0)), axis=1).max() / 200
    oracle = MultiTaskLasso(alpha=largest / 4, tol=1e-12, max_iter=100_000).fit(X.toarray(), Y)
    assert newton["nonzeros"] == np.count_nonzero(oracle.coef_.any(axis=0))


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--peers lassoo", "lassoo"),
        ("--engines celer", "celer"),
        ("--runs 0", "--runs"),
        ("--alphas 0", "--alphas"),
        ("--alphas 1,2,3 --ratio 2,3", "--ratio"),
        ("--ratio 1", "--ratio"),
        ("--ratio nan", "--ratio"),
        ("--tol 0", "--tol"),
        ("--curve 2", "--curve"),
        ("--timeout 0", "--timeout"),
        ("--timeout inf", "--timeout"),
        ("--threads 0", "--threads"),
        ("--synthetic 100", "--synthetic"),
        ("--synthetic 10x10", "--synthetic"),
        ("--synthetic axb", "--synthetic"),
        ("--seed -1", "--seed"),
        ("--data nowhere", "nowhere"),
        ("--targets ,", "--targets"),
        ("--matrix nowhere.npz --y nowhere.npy", "nowhere.npz"),
        ("--matrix pyproject.toml", "--y"),
        ("--matrix pyproject.toml --y pyproject.toml", "pyproject.toml"),
        ("--synthetic 100x100 --data tests", "more than one problem"),
        ("--python-for celer", "--python-for"),
        ("--python-for lassoo=python", "lassoo"),
        ("--out pyproject.toml", "--out"),
        ("--out s3://bucket/x", "--out"),
    ],
)
def test_bad_input_is_refused(flags, named, tmp_path):
    out = () if "--out" in flags else ("--out", tmp_path)
    outcome = tenfold("bench", "lasso", *flags.split(), *out)
    assert outcome.code == 2
    assert outcome.out == ""
    assert named in outcome.err.splitlines()[-1]


def test_response_of_another_length_is_refused(tmp_path):
    sp.save_npz(tmp_path / "X.npz", sp.eye(60, format="csc"))
    np.save(tmp_path / "y.npy", np.ones(50))
    files = ("--matrix", tmp_path / "X.npz", "--y", tmp_path / "y.npy", "--out", tmp_path)
    outcome = tenfold("bench", "lasso", *files)
    assert outcome.code == 2
    assert "--y" in outcome.err
