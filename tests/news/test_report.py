"""The report of a news run: complete, self-contained, and safe with any text in it."""

import base64
import datetime
import hashlib
import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from browser import SCRIPTS, ran, without_policy
from page import Page
from plotly.offline import get_plotlyjs

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.news.report.figures import TOP_WORDS, correlation_over_time, word_bars
from pipelines.news.report.page import TABLE_ROWS, render_report, write_report
from pipelines.news.report.paths import (
    _spread_out,
    coefficient_path,
    simplest_alphas,
    validation_curve,
)
from pipelines.report_text import hover, label, visible, write_bytes, write_duration, write_gap

SCHEMA = {
    "path": "target:string fold:int64 alpha:float64 gap:float64 nonzeros:int64 n_iter:int64 "
    "seconds:float64 train_mse:float64 validation_mse:float64",
    "coef_path": "target:string ngram:string alpha:float64 coef:float64",
    "dictionary": "target:string ngram:string coef:float64 df:int64 aliases:list stability:float64 "
    "gap:float64",
    "daily_ic": "target:string session:date32 ic:float64 rank_ic:float64 n:int64",
}
ALPHAS = np.geomspace(0.02, 0.001, 12)
NULL = dict.fromkeys(("ic", "rank_ic", "daily_ir", "pooled_ic", "oof_r2", "directional_accuracy"))


def make_run(folder, words, *, n_folds=4, gap=3e-8, daily=True, stability=None, **config):
    """A run folder; ``words`` maps a target to its n-grams, or to (ngram, aliases) pairs."""
    random = np.random.default_rng(7)
    rows = {name: [] for name in SCHEMA}
    targets = {}
    for name, ngrams in words.items():
        pairs = [(word, []) if isinstance(word, str) else word for word in ngrams]
        coefs = np.linspace(1, -0.9, len(pairs))
        for fold in range(-1, n_folds):
            mse = np.nan if fold < 0 else 1 + 0.1 * fold
            curve = mse + 0.02 * (np.linspace(-1, 1.2, ALPHAS.size) ** 2)
            rows["path"] += [
                (name, fold, alpha, gap, 3 * i, 2, 0.01, 0.9, curve[i])
                for i, alpha in enumerate(ALPHAS)
            ]
        for (ngram, aliases), coef in zip(pairs, coefs, strict=True):
            rows["dictionary"].append((name, ngram, coef, 17, aliases, stability, gap))
            rows["coef_path"] += [(name, ngram, alpha, coef) for alpha in ALPHAS[5:]]
        if daily:
            days = [datetime.date(2024, 1, 1) + datetime.timedelta(days=i) for i in range(40)]
            ics = [None, *random.normal(0.02, 0.2, 39)]
            rows["daily_ic"] += [(name, day, ic, ic, 8) for day, ic in zip(days, ics, strict=True)]
        targets[name] = NULL | {
            "alpha": ALPHAS[5],
            "alpha_max": ALPHAS[0],
            "rule": "min",
            "nonzeros": len(pairs),
            "gap": gap,
            "largest_gap": gap,
            "n_rows": 1000,
            "n_out_of_fold": 800,
            "intercept": 0.0,
            "mean": 0.0,
            "std": 0.02,
        }
    run = Store(folder)
    for name, columns in SCHEMA.items():
        run.write_table(f"{name}.parquet", as_table(rows[name], columns))
    stages = [
        {"name": "read", "seconds": 1.5, "cpu_seconds": 1.4, "peak_gib": 0.3, "reused": True},
        {"name": "path", "seconds": 30.0, "cpu_seconds": None, "peak_gib": None, "reused": False},
    ]
    metrics = {
        "targets": targets,
        "corpus": {"documents": 1234, "observations": 1000, "dropped": {"no session": 234}},
        "matrix": None,
        "stages": stages,
        "engine": "newton",
        "tol": 1e-6,
        "cluster": "embedded Ray\nnodes: one",
        "total_seconds": 31.5,
        "peak_gib": None,
    }
    run.write_json("metrics.json", metrics)
    run.write_json("config.json", {"ngrams": {"ngram_max": 3, **config}, "seed": 0})
    return run


def as_table(rows, columns):
    types = {"list": pa.list_(pa.string()), "date32": pa.date32()}
    names = [column.split(":") for column in columns.split()]
    values = list(zip(*rows, strict=True)) or [[] for _ in names]
    arrays = [
        pa.array(part, types.get(kind) or pa.type_for_alias(kind))
        for part, (_, kind) in zip(values, names, strict=True)
    ]
    return pa.table(arrays, names=[name for name, _ in names])


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", {"excess_return": ["beats", "misses", "recall"]})


def test_report_is_written_through_the_store(run):
    write_report(run)
    assert run.read_bytes("report.html").decode() == render_report(run)


def test_report_refers_to_nothing_outside_itself(run):
    html = render_report(run)
    page = Page(html)
    assert html.count(get_plotlyjs()) == 1
    for _, attrs in page.elements:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            assert re.match(r"(#|data:)", attrs.get(name) or "#")
    assert "http" not in html.replace(get_plotlyjs(), "").replace("http-equiv", "")
    assert "@import" not in html
    assert "url(" not in html.replace(get_plotlyjs(), "")


def test_browser_is_told_to_run_our_two_scripts_only(run):
    page = Page(render_report(run))
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert len(page.scripts) == 2
    for script in page.scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy.partition("style-src")[0]


HOSTILE = [
    *SCRIPTS[:3],
    "{{ 7 * 7 }}",
    "<a href='https://evil.example'>x</a> %{y} &lt;b&gt;",
    "nul\x00 bell\x07 \u202eturned",
    "very long " * 400,
    "삼성전자 영업이익",
]


@pytest.fixture
def hostile(tmp_path):
    words = [(text, [f"{text} again"] * 9) for text in HOSTILE]
    folder = tmp_path / "<img src=x onerror=hostile>"
    run = make_run(folder, dict.fromkeys(HOSTILE, words), note=HOSTILE[0])
    metrics = run.read_json("metrics.json")
    metrics["cluster"] = metrics["engine"] = metrics["stages"][0]["name"] = HOSTILE[1]
    metrics["corpus"]["dropped"] = {HOSTILE[2]: 3}
    run.write_json("metrics.json", metrics)
    run.write_json(
        "truth.json", {"planted": 2, "found": 1, "false": 0, "by_target": {HOSTILE[0]: {}}}
    )
    return render_report(run)


def test_hostile_text_is_inert(hostile):
    page = Page(hostile)
    assert len(page.scripts) == 2
    assert page.all("img") == page.all("svg") == []
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert {attrs["href"] for attrs in page.all("a")} == {
        f"#target-{i}" for i in range(len(HOSTILE))
    }
    for text in HOSTILE[:5]:
        assert text in page.text
    assert "\x00" not in page.text
    assert "\u202e" not in page.text
    # Plotly makes links and bold type of tags in a label: none may reach it but our own.
    labels = json.dumps([json.loads(figure) for figure in page.figures], ensure_ascii=False)
    assert set(re.findall(r"<[^>]*>", labels)) <= {"<b>", "</b>", "<br>", "<extra>", "</extra>"}


def test_script_in_a_text_does_not_run_in_a_browser(hostile, tmp_path):
    assert ran(without_policy(hostile), tmp_path) == (False, True)


def test_script_that_is_not_ours_is_stopped_by_the_policy(run, tmp_path):
    html = render_report(run).replace("</main>", f"{SCRIPTS[0]}</main>")
    assert ran(without_policy(html), tmp_path) == (True, True)  # a browser would run it
    assert ran(html, tmp_path) == (False, True)


def test_target_without_words_says_so(tmp_path):
    run = make_run(tmp_path / "run", {"quiet": [], "loud": ["beats"]})
    page = Page(render_report(run))
    assert "No word was chosen" in page.text
    assert "No word enters along the path" in page.text


def test_undefined_metrics_are_dashes(tmp_path):
    run = make_run(tmp_path / "run", {"excess_return": ["beats"]}, daily=False)
    run.delete("daily_ic.parquet")
    page = Page(render_report(run))
    assert "No daily IC" in page.text
    assert page.text.count("–") > 6
    assert "nan" not in page.text.lower()
    assert "None" not in page.text


def test_twenty_targets_are_each_there(tmp_path):
    names = [f"excess_return+{lag}" for lag in range(20)]
    page = Page(render_report(make_run(tmp_path / "run", {name: ["beats"] for name in names})))
    assert [s["id"] for s in page.all("section")] == [f"target-{i}" for i in range(20)]
    assert len(page.figures) == 20 * 5 + 1


def test_thousands_of_words_are_capped(tmp_path):
    run = make_run(tmp_path / "run", {"excess_return": [f"word{i}" for i in range(3000)]})
    html = render_report(run)
    table = html.partition('<table class="words"')[2].partition("</table>")[0]
    assert table.count("<tr>") == TABLE_ROWS + 1
    assert f"The {TABLE_ROWS} strongest of 3,000" in Page(html).text
    bars = next(f for f in map(json.loads, Page(html).figures) if f["data"][0]["type"] == "bar")
    assert len(bars["data"][0]["customdata"]) == TOP_WORDS


def test_aliases_are_collisions_when_columns_are_hashed(tmp_path):
    words = {"excess_return": [("beats", ["oranges"])]}
    exact = Page(render_report(make_run(tmp_path / "exact", words, hash_bits=0)))
    hashed = Page(render_report(make_run(tmp_path / "hashed", words, hash_bits=18)))
    assert "collides with" not in exact.text
    assert "collides with" in hashed.text
    assert "oranges" in hashed.text


@pytest.mark.parametrize(("stability", "shown"), [(None, False), (0.73, True)])
def test_stability_is_shown_when_it_was_computed(tmp_path, stability, shown):
    run = make_run(tmp_path / "run", {"excess_return": ["beats"]}, stability=stability)
    assert ("73 %" in Page(render_report(run)).text) == shown


def test_proof_counts_the_fits_that_missed_the_tolerance(tmp_path):
    kept = Page(render_report(make_run(tmp_path / "kept", {"a": ["beats"]})))
    assert "All 60 fits" in kept.text
    missed = Page(render_report(make_run(tmp_path / "missed", {"a": ["beats"]}, gap=2e-4)))
    assert "60 of 60 fits" in missed.text
    assert "missed the tolerance of 1.0 × 10⁻⁶; the largest gap is 2.0 × 10⁻⁴" in missed.text


def test_planted_truth_is_shown_in_a_demo(run):
    part = {"planted": 40, "found": 39, "false": 1}
    run.write_json("truth.json", {**part, "by_target": {"excess_return": part}, "market": {}})
    assert "39 of 40 were found (97.50 %), and 1 of the words" in Page(render_report(run)).text


@pytest.mark.parametrize("name", ["metrics.json", "config.json", "path.parquet"])
def test_unfinished_run_is_bad_input(run, name):
    run.delete(name)
    with pytest.raises(InputError, match=name):
        render_report(run)


@pytest.mark.parametrize("name", ["metrics.json", "dictionary.parquet"])
def test_damaged_file_is_bad_input(run, name):
    run.write_bytes(name, b"PAR1 torn")
    with pytest.raises(InputError, match=name):
        render_report(run)


def test_same_run_gives_the_same_report(run):
    assert render_report(run) == render_report(run)


def test_single_alpha_can_be_drawn(run):
    path = run.read_table("path.parquet").to_pandas()
    path = path[path["alpha"] == path["alpha"].max()]
    run.write_table("path.parquet", pa.Table.from_pandas(path, preserve_index=False))
    assert len(Page(render_report(run)).figures) == 6


def test_one_standard_error_alpha_is_the_largest_within_reach():
    errors = pd.DataFrame(
        {0: [1.30, 1.02, 1.00, 1.01], 1: [1.40, 1.12, 1.10, 1.13]}, index=[0.4, 0.3, 0.2, 0.1]
    )
    # Lowest mean 1.05 at 0.2 with standard error 0.05: 0.3 (1.07) is within reach, 0.4 is not.
    assert simplest_alphas(errors) == (0.2, 0.3)
    assert simplest_alphas(errors[[0]]) == (0.2, 0.2)


def test_validation_curve_marks_the_chosen_alpha(run):
    path = run.read_table("path.parquet").to_pandas()
    lowest = float(ALPHAS[5])
    figure = validation_curve(path, lowest)
    names = [trace.name for trace in figure.data]
    assert any(name.startswith(f"chosen α = {lowest:.4g} (lowest mean error") for name in names)
    assert sum(name == "folds" for name in names) == 2 * 4
    assert validation_curve(path[path["fold"] < 0], lowest) is None


def test_coefficient_path_is_zero_before_a_word_enters(run):
    coefficients = run.read_table("coef_path.parquet").to_pandas()
    trace = coefficient_path(coefficients, ALPHAS, None).data[0]
    np.testing.assert_allclose(trace.x, ALPHAS[::-1])
    np.testing.assert_array_equal(np.asarray(trace.y)[::-1][:5], 0.0)


def test_path_labels_keep_apart_and_near_their_lines():
    placed = _spread_out(np.array([0.0, 0.01, 0.02, 9.0]), span=10.0)
    np.testing.assert_allclose(placed, [-0.49, 0.01, 0.51, 9.0], atol=1e-12)


def test_bars_give_the_room_of_a_short_side_to_the_other():
    words = pd.DataFrame(
        {"ngram": [f"w{i}" for i in range(60)], "coef": [-1.0] * 3 + [2.0 + i for i in range(57)]}
    ).assign(df=3, aliases=None)
    bars = word_bars(words, "also").data[0]
    assert len(bars.x) == TOP_WORDS
    assert sum(x < 0 for x in bars.x) == 3


def test_running_sum_and_rolling_mean_are_of_the_defined_sessions():
    ic = [None, *np.linspace(-0.1, 0.3, 25)]
    daily = pd.DataFrame({"session": range(26), "ic": ic, "rank_ic": ic, "n": 9})
    points, rolling, total, _ = correlation_over_time(daily).data
    assert len(points.y) == 25
    np.testing.assert_allclose(rolling.y[-1], np.mean(ic[-21:]), rtol=1e-5)
    assert np.isnan(rolling.y[:20]).all()
    np.testing.assert_allclose(total.y[-1], np.sum(ic[1:]), rtol=1e-5)


def test_labels_are_cut_by_width_and_escaped():
    assert label("abc" * 50) == ("abc" * 50)[:34] + "…"
    assert label("삼" * 50) == "삼" * 17 + "…"
    assert label("a <b> & $c$") == "a &lt;b&gt; &amp; &#36;c&#36;"
    assert hover("x" * 1000).replace("<br>", "") == "x" * 240 + "…"
    assert visible("a\nb\u202e") == "a\ufffdb\ufffd"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (59.4, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations_read_as_a_person_would_say_them(seconds, text):
    assert write_duration(seconds) == text


def test_gaps_are_written_as_powers_of_ten():
    assert [write_gap(g) for g in (8.1e-7, 0.0, None, float("nan"))] == [
        "8.1 × 10⁻⁷",
        "0",
        "–",
        "–",
    ]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (812, "812 B"), (999_499, "999 kB"), (999_500, "1 MB"), (29e8, "2.9 GB")],
)
def test_sizes_have_three_digits(size, text):
    assert write_bytes(size) == text
