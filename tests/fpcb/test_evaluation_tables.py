"""The tables of a run, the severity sweep, and the comparison with baselines."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import average_precision_score

from cluster.errors import InputError
from pipelines.fpcb.evaluation.compare import compare, holm, judged
from pipelines.fpcb.evaluation.curves import ALL_CRACKED, by_scenario
from pipelines.fpcb.evaluation.found import found_errors
from pipelines.fpcb.evaluation.sweep import smallest_found
from pipelines.fpcb.evaluation.tables import curves, evaluate
from pipelines.fpcb.evaluation.thresholds import for_false_alarms

COUNTS = {"normal": 120, "thick_panel": 30, "crack": 30, "pre_damage": 25}
CRACKED = ("crack", "pre_damage")


def scored(seed=0, split="test", **detectors):
    rng = np.random.default_rng(seed)
    scenario = np.repeat([*COUNTS], [*COUNTS.values()])
    label = np.isin(scenario, CRACKED).astype(np.int8)
    n = label.size
    good = label == 0
    distances = detectors or {"dream": 4.0, "ensemble": 5.0, "best_feature": 1.0}
    score = {name: rng.normal(size=n) + by * label for name, by in distances.items()}
    damage = np.where(scenario == "pre_damage", 0, rng.integers(5, 50, n))
    crack = np.where(scenario == "pre_damage", 30, damage)
    place = rng.uniform(0.2, 0.8, n)
    first = next(iter(score.values()))
    return pa.table(
        {
            "number": np.arange(n),
            "split": [split] * n,
            "scenario": scenario,
            "label": label,
            "damage_frame": pa.array(damage.astype(np.int32), mask=good),
            "crack_frame": pa.array(crack.astype(np.int32), mask=good),
            "crack_place": pa.array(place, mask=good),
            **score,
            "called_ng": first > 2.0,
            "found_frame": damage + rng.integers(-1, 3, n),
            "found_place": place + rng.normal(0, 0.01, n),
            "sure": norm.cdf(first - 2.0),
        }
    )


def thresholds(table):
    label = table["label"].to_numpy()
    columns = {"dream", "ensemble", "best_feature"} & set(table.column_names)
    return {name: for_false_alarms(label, table[name].to_numpy(), 0.05) for name in columns}


def test_table_rows_are_those_of_each_detector_alone():
    table, chosen = scored(), thresholds(scored(1))
    metrics = evaluate(table, chosen, replicas=100, seed=3)
    label, scenario = table["label"].to_numpy(), table["scenario"].to_numpy(zero_copy_only=False)
    assert metrics["left_out"] == ["patchcore", "mahalanobis"]
    for name in ("dream", "ensemble", "best_feature"):
        score = table[name].to_numpy()
        threshold = chosen[name].value
        alone = by_scenario(label, score, scenario, threshold, replicas=100, seed=3)
        own = metrics["detectors"][name]
        assert own["cracked"] == alone["cracked"]
        assert own["threshold"] == chosen[name].to_dict()
        called = {row["scenario"]: row for row in own["confusion"]["scenarios"]}
        assert called["thick_panel"]["called_ng"] == alone["good"]["thick_panel"]["called_ng"]
        assert called["crack"]["n_called_ng"] == (score[scenario == "crack"] > threshold).sum()
        counts = [own["confusion"][k] for k in ("tp", "fp", "fn", "tn")]
        both = [(score > threshold) & (label == 1), (score > threshold) & (label == 0)]
        assert counts[:2] == [one.sum() for one in both]
        assert sum(counts) == len(table)
        assert own["confusion"]["precision"]["value"] == counts[0] / (counts[0] + counts[1])


def test_metrics_are_json_without_nan():
    metrics = evaluate(scored(), thresholds(scored(1)), replicas=20)
    again = json.loads(json.dumps(metrics, allow_nan=False))
    assert again["panels"]["cracked"] == {"crack": 30, "pre_damage": 25}
    assert again["panels"]["good"] == {"normal": 120, "thick_panel": 30}
    drawn = curves(scored())
    assert set(drawn) == {"dream", "ensemble", "best_feature"}
    assert set(drawn["dream"]) == {ALL_CRACKED, *CRACKED}
    json.dumps(drawn, allow_nan=False)


def test_only_rows_of_the_split_and_with_labels_count():
    test, other = scored(), scored(7, split="val")
    unknown = test.slice(0, 9).set_column(3, "label", pa.nulls(9, pa.int8()))
    metrics = evaluate(pa.concat_tables([test, other, unknown]), {}, replicas=20)
    assert metrics["detectors"] == evaluate(test, {}, replicas=20)["detectors"]
    assert metrics["panels"]["unlabelled"] == 9
    assert metrics["hardest"] == []
    everything = evaluate(pa.concat_tables([test, other]), {}, split=None, replicas=20)
    assert everything["panels"]["n"] == 2 * len(test)


def test_order_of_rows_makes_no_difference():
    table = scored()
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    one, two = (evaluate(t, thresholds(scored(1)), replicas=20) for t in (table, shuffled))
    assert one == two


def test_hardest_scenario_is_the_one_judged_wrongly_most():
    table = scored()
    score = table["ensemble"].to_numpy().copy()
    score[table["scenario"].to_numpy(zero_copy_only=False) == "pre_damage"] -= 5.0
    table = table.set_column(table.column_names.index("ensemble"), "ensemble", [score])
    ranked = evaluate(table, thresholds(scored(1)), replicas=20)["hardest"]
    assert (ranked[0]["scenario"], ranked[0]["label"]) == ("pre_damage", 1)
    shares = [one["n_wrong"] / one["n"] for one in ranked]
    assert shares == sorted(shares, reverse=True)
    assert len(ranked) == len(COUNTS)


def test_a_scenario_of_both_kinds_and_one_without_a_name_are_kept():
    table = scored()
    named = [None if k % 2 else "line 4" for k in range(len(table))]
    table = table.set_column(2, "scenario", [named])
    panels = evaluate(table, {}, replicas=20)["panels"]
    assert set(panels["good"]) == set(panels["cracked"]) == {"line 4", "unknown"}
    assert sum(panels["good"].values()) == panels["n_good"]


def test_difference_is_found_where_it_is_and_only_there():
    table = scored(5, dream=6.0, patchcore=1.0, best_feature=1.0)
    rows = evaluate(table, {}, replicas=400)["beats"]
    verdicts = {(row["detector"], row["scenario"]): row for row in rows}
    assert {row["baseline"] for row in rows} == {"best_feature"}
    assert verdicts["dream", ALL_CRACKED]["verdict"] == "better"
    assert verdicts["dream", ALL_CRACKED]["low"] > 0.1
    assert verdicts["patchcore", ALL_CRACKED]["verdict"] == "level"
    label, score = table["label"].to_numpy(), {n: table[n].to_numpy() for n in table.column_names}
    area = {n: average_precision_score(label, score[n]) for n in ("dream", "best_feature")}
    difference = verdicts["dream", ALL_CRACKED]["difference"]
    assert difference == pytest.approx(area["dream"] - area["best_feature"])
    assert verdicts["dream", ALL_CRACKED]["room"] == pytest.approx(1 - area["best_feature"])


def test_difference_is_taken_panel_by_panel():
    table = scored(6, dream=1.0)
    near = table["dream"].to_numpy() + np.random.default_rng(0).normal(0, 0.02, len(table))
    metrics = evaluate(table.append_column("best_feature", pa.array(near)), {}, replicas=200)
    area = metrics["detectors"]["dream"]["cracked"][ALL_CRACKED]["pr_auc"]
    one = next(row for row in metrics["beats"] if row["scenario"] == ALL_CRACKED)
    assert one["high"] - one["low"] < 0.2 * (area["high"] - area["low"])


def test_two_flawless_detectors_are_level():
    perfect = {"dream": 100.0, "mahalanobis": 90.0}
    rows = evaluate(scored(**perfect), {}, replicas=50)["beats"]
    assert {(row["difference"], row["p_holm"], row["verdict"]) for row in rows} == {
        (0.0, 1.0, "level")
    }


def test_detectors_alike_are_seldom_told_apart():
    rng = np.random.default_rng(8)
    called = 0
    for _ in range(300):
        drawn = rng.normal(size=(2, 200)) * 0.03
        values = rng.normal(size=2) * 0.03
        called += judged(compare(("dream", "best_feature"), values, drawn, "x"))[0][
            "verdict"
        ] != "level"  # fmt: skip
    assert 4 <= called <= 30  # 15 of 300 expected


def test_holm_matches_its_definition():
    # Holm's own procedure: reject in order while p_(i) ≤ α / (m − i).
    p = np.array([0.011, 0.04, 0.002, 0.3, 0.012])
    adjusted = holm(p)
    np.testing.assert_allclose(adjusted, [0.044, 0.08, 0.01, 0.3, 0.044])
    for alpha in (0.01, 0.043, 0.045, 0.1, 0.5):
        rejected, order = set(), np.argsort(p)
        for i, j in enumerate(order):
            if p[j] > alpha / (p.size - i):
                break
            rejected.add(int(j))
        assert rejected == set(np.flatnonzero(adjusted <= alpha + 1e-12).tolist())
    assert holm([]).size == 0


def test_found_errors_match_brute_force():
    table = scored()
    frame = table.to_pandas()
    own = frame[(frame.label == 1) & frame.called_ng]
    found = found_errors(table)
    for name in CRACKED:
        rows = own[own.scenario == name]
        time = (rows.found_frame - rows.damage_frame).abs()
        assert found[name]["frame"]["n"] == len(rows)
        assert found[name]["frame"]["median_error"]["value"] == time.median()
        assert found[name]["frame"]["percentile_90"] == pytest.approx(time.quantile(0.9))
        assert found[name]["frame"]["share_within"]["value"] == (time <= 1).mean()
        place = (rows.found_place - rows.crack_place).abs()
        assert found[name]["place"]["share_within"]["value"] == (place <= 0.03).mean()
        event = rows.found_frame - rows.crack_frame
        assert found[name]["event_frame"]["median_signed"] == event.median()
    # Of all, those that cracked while filmed; place of everyone.
    assert found[ALL_CRACKED]["frame"]["n"] == (own.scenario == "crack").sum()
    assert found[ALL_CRACKED]["place"]["n"] == len(own)


def test_found_errors_leave_out_what_is_not_known():
    table = scored()
    nothing = pa.nulls(len(table), pa.int32())
    table = table.set_column(table.column_names.index("damage_frame"), "damage_frame", nothing)
    found = found_errors(table)
    assert found["crack"]["frame"]["n"] == 0
    assert found["crack"]["frame"]["median_error"]["value"] is None
    assert found["crack"]["place"]["n"] > 0
    none_called = table.set_column(
        table.column_names.index("called_ng"), "called_ng", [[False] * len(table)]
    )
    assert list(found_errors(none_called)) == [ALL_CRACKED]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop_columns("label"), "column missing"),
        (lambda t: t.drop_columns("split"), "column missing"),
        (lambda t: t.slice(0, 0), "labelled panels of split 'test'"),
        (lambda t: t.slice(150), "cracked ones alone"),
        (lambda t: t.drop_columns(["dream", "ensemble", "best_feature"]), "none of them"),
        (
            lambda t: t.set_column(
                t.column_names.index("dream"), "dream", [[None, *t["dream"].to_pylist()[1:]]]
            ),
            "scores of dream: scores: expected finite numbers, got 1",
        ),
    ],
)
def test_scores_that_cannot_be_evaluated_are_refused(change, words):
    with pytest.raises(InputError) as caught:
        evaluate(change(scored()), {}, replicas=10)
    assert words in str(caught.value)


def test_threshold_of_a_detector_that_is_not_there_is_refused():
    chosen = {"patchcore": thresholds(scored(1))["dream"]}
    with pytest.raises(InputError, match="got patchcore"):
        evaluate(scored(), chosen, replicas=10)


def test_good_panels_alone_show_false_alarms():
    metrics = evaluate(scored().slice(0, 150), thresholds(scored(1)), replicas=10)
    assert metrics["detectors"]["dream"]["cracked"] == {}
    assert metrics["beats"] == []
    assert metrics["detectors"]["dream"]["confusion"]["recall"]["value"] is None


def sweep(rng, n=600, middle_deg=3.0, steep=4.0):
    angle = np.exp(rng.uniform(np.log(0.1), np.log(30.0), n))
    return angle, rng.random(n) < 1 / (1 + np.exp(-steep * np.log(angle / middle_deg)))


def test_smallest_found_lies_where_the_truth_does():
    truth = np.exp(np.log(3.0) + np.log(9.0) / 4.0)
    held, values = 0, []
    for seed in range(40):
        found = smallest_found(*sweep(np.random.default_rng(seed)), replicas=60)
        held += found["low"] <= truth <= found["high"]
        values.append(found["value"])
    assert np.median(values) == pytest.approx(truth, rel=0.1)
    assert held >= 32


def test_sweep_matches_isotonic_regression_of_scikit_learn():
    angle, hit = sweep(np.random.default_rng(1), n=200)
    found = smallest_found(angle, hit, replicas=20)
    peer = IsotonicRegression().fit(np.log(angle), hit)
    curve = found["curve"]
    expected = peer.predict(np.log(curve["kink_deg"]))
    np.testing.assert_allclose(curve["found"], expected, atol=1e-9)
    fine = np.linspace(np.log(angle.min()), np.log(angle.max()), 200_001)
    crossed = np.exp(fine[np.argmax(peer.predict(fine) >= 0.9)])
    assert found["value"] == pytest.approx(crossed, rel=1e-3)


@given(st.integers(0, 1_000), st.floats(0.01, 100))
@settings(max_examples=15, deadline=None)
def test_sweep_scales_with_the_angle(seed, factor):
    angle, hit = sweep(np.random.default_rng(seed), n=120)
    one, two = (smallest_found(a, hit, replicas=10) for a in (angle, factor * angle))
    for key in ("value", "low", "high"):
        assert (one[key] is None) == (two[key] is None)
        if one[key] is not None:
            assert two[key] == pytest.approx(factor * one[key], rel=1e-6)


def test_sweep_on_a_grid_goes_straight_between_the_angles():
    angle = np.repeat([1.0, 4.0], 20)
    hit = np.r_[np.arange(20) < 16, np.ones(20)]  # 80 % and 100 %: 90 % half way, in logarithms
    assert smallest_found(angle, hit, replicas=10)["value"] == pytest.approx(2.0)


def test_sweep_says_what_it_cannot_know():
    angle = np.geomspace(0.1, 30, 50)
    never = smallest_found(angle, np.zeros(50), replicas=20)
    assert (never["value"], never["low"], never["high"]) == (None, None, None)
    always = smallest_found(angle, np.ones(50), replicas=20)
    assert always["value"] == pytest.approx(0.1)
    assert always["at_most"]
    assert not never["at_most"]
    json.dumps([never, always], allow_nan=False)


@pytest.mark.parametrize(
    ("angle", "hit", "share", "words"),
    [
        (np.ones(5), np.ones(5), 0.9, "at least 20, got 5"),
        (np.ones(30), np.ones(29), 0.9, "an answer for each"),
        (np.zeros(30), np.ones(30), 0.9, "angles above 0"),
        (np.full(30, np.nan), np.ones(30), 0.9, "angles above 0"),
        (np.ones(30), np.full(30, np.nan), 0.9, "True or False"),
        (np.ones(30), np.ones(30), 1.0, "between 0 and 1"),
    ],
)
def test_sweeps_that_cannot_be_judged_are_refused(angle, hit, share, words):
    with pytest.raises(InputError) as caught:
        smallest_found(angle, hit, share)
    assert words in str(caught.value)
