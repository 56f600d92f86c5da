"""`tenfold profile`: what it measures, and what it makes of it."""

import json

import numpy as np
import pytest
import scipy.sparse as sp
from command import tenfold

from pipelines.bench.recommend import busy, compare, recommend


def columns(*dictionaries):
    return sp.csc_matrix(np.array(dictionaries, dtype=float).T)


def tol_row(tol, overlap=1.0, difference=0.0):
    return {
        "tol": tol,
        "overlap": overlap,
        "smallest_overlap": overlap,
        "difference": difference,
    }


def layout_row(workers, threads, tol, rate):
    return {"workers": workers, "threads": threads, "tol": tol, "paths_per_s": rate}


def test_profile_measures_every_tol_in_every_layout(tmp_path):
    outcome = tenfold(
        "profile", "--synthetic", "400x900", "--alphas", 4, "--ratio", 5, "--tols", "0.1,1e-8",
        "--layouts", "1x1,2x1", "--runs", 1, "--seconds", 0.05, "--out", tmp_path, "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    found = outcome.json
    measured = [(row["workers"], row["threads"], row["tol"]) for row in found["layouts"]]
    assert measured == [(1, 1, 0.1), (1, 1, 1e-8), (2, 1, 0.1), (2, 1, 1e-8)]
    for row in found["layouts"]:
        assert row["paths_per_s"] == pytest.approx(row["workers"] / row["wall_seconds"])
        assert row["screen_gb_s"] > 0
        assert row["share_of_copy"] == pytest.approx(row["screen_gb_s"] / row["copy_gb_s"])
    loose, tight = found["tols"]
    assert tight["gap"] <= 1e-8 < loose["gap"] <= 0.1
    assert (tight["overlap"], tight["difference"]) == (1.0, 0.0)
    assert loose["difference"] > 0
    assert found["recommendation"].startswith("use --tol ")
    assert json.loads((tmp_path / "profile.json").read_text()) == found
    assert not list(tmp_path.glob("problem-*"))


def test_dictionaries_are_compared_alpha_by_alpha():
    tightest = columns([0, 0, 0], [2, 0, 0], [2, -4, 0])
    other = columns([0, 0, 0], [2, 1, 0], [2, -3, 0])
    assert compare(other, tightest) == {
        "words": 2,
        "overlap": 1.0,
        "smallest_overlap": 0.5,
        "difference": 0.5,
    }


def test_loosest_tol_with_the_same_dictionary_is_recommended():
    tols = [tol_row(1e-3, 0.8), tol_row(1e-4, 0.995, 1e-4), tol_row(1e-6)]
    layouts = [layout_row(1, 1, t, r) for t, r in ((1e-3, 10), (1e-4, 8), (1e-6, 4))]
    assert recommend(tols, layouts)["recommended"]["tol"] == 1e-4


def test_tighter_tol_is_recommended_when_it_is_free():
    tols = [tol_row(1e-3), tol_row(1e-6)]
    layouts = [layout_row(1, 1, 1e-3, 10), layout_row(1, 1, 1e-6, 9.5)]
    assert recommend(tols, layouts)["recommended"]["tol"] == 1e-6


def test_smallest_of_equally_fast_layouts_is_recommended():
    rates = {(1, 1): 1.0, (2, 1): 1.95, (1, 2): 1.1, (4, 1): 2.0}
    layouts = [layout_row(*pair, 1e-6, rate) for pair, rate in rates.items()]
    found = recommend([tol_row(1e-6)], layouts)
    assert found["recommended"] == {"tol": 1e-6, "workers": 2, "threads": 1}
    assert "1.95 times 1 x 1" in found["recommendation"]


def test_rates_of_a_busy_machine_are_warned_of():
    alone = {"workers": 1, "threads": 1, "cpu_seconds_per_path": 0.95, "wall_seconds": 1.0}
    squeezed = {**alone, "workers": 2, "wall_seconds": 2.0}
    assert busy([alone], cores=2) == ""
    assert "48% of a core" in busy([alone, squeezed], cores=2)
    assert busy([alone, squeezed], cores=1) == ""  # two workers on one core are expected to wait


@pytest.mark.parametrize(
    "flags",
    [
        "--engine celer", "--alphas 0", "--ratio 0.5", "--tols 0", "--tols x", "--layouts 0x1",
        "--layouts 2", "--runs 0", "--seconds 0", "--synthetic 5x5", "--data nowhere",
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_profile(flags, tmp_path):
    outcome = tenfold("profile", *flags.split(), "--out", tmp_path)
    assert outcome.code == 2
    assert outcome.out == ""
    assert flags.split()[0] in outcome.err
