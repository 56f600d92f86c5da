"""Whole runs through the command, on markets whose truth is known, and a few real texts."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from command import tenfold

from actors.lasso.certificate import certify
from cluster.meter import Meter
from cluster.storage import Store
from pipelines.news.config import read_config
from pipelines.news.demo import compare_with_truth
from pipelines.news.fitting.solve import on_fold
from pipelines.news.prepare import load, prepare
from pipelines.news.synthetic import SyntheticConfig, make_market, write_market

TOL = 1e-6
TARGETS = ("excess_return", "volume_change")
SMALL = SyntheticConfig(
    documents=2_500, tickers=24, sessions=80, words=4, planted_per_text=2.0, noise=0.3
)
FIT = ["--folds", 3, "--alphas", 14, "--alpha-ratio", 15, "--ngram-max", 2]
REAL = Path(__file__).parents[1].parent / "shared" / "data" / "stocknet"


class Run:
    """A finished run's folder and its tables."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def table(self, name):
        return pd.read_parquet(self.folder / f"{name}.parquet")

    def json(self, name):
        return json.loads((self.folder / f"{name}.json").read_text())

    def bytes(self, name="dictionary.parquet"):
        return (self.folder / name).read_bytes()

    @property
    def dictionary(self):
        return self.table("dictionary")

    @property
    def words(self):
        return set(zip(self.dictionary["target"], self.dictionary["ngram"], strict=True))


class Loaded(HTMLParser):
    """Collects what a page would load from elsewhere."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag in ("script", "link", "img", "iframe"):
            address = found.get("src") or found.get("href") or ""
            self.addresses += [address] * (bool(address) and not address.startswith("data:"))


def fit_files(news, prices, out, *options, targets=TARGETS):
    done = tenfold(
        "news", "fit", "--news", news, "--prices", prices, "--out", out,
        "--targets", ",".join(targets), *FIT, *options,
    )  # fmt: skip
    assert done.code == 0, done.err
    return done


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market")
    write_market(SMALL, folder)
    return folder


@pytest.fixture(scope="module")
def fit(cluster, market, tmp_path_factory):
    """Return what fits the small market with more options, and gives back the run."""

    def start(*options, targets=TARGETS):
        out = tmp_path_factory.mktemp("runs") / "run"
        files = (market / f"{name}.parquet" for name in ("news", "prices"))
        fit_files(*files, out, *options, targets=targets)
        return Run(out)

    return start


@pytest.fixture(scope="module")
def plain(fit):
    return fit("--workers", 2)


@pytest.fixture(scope="module")
def lexicon(market):
    found = pd.read_csv(market / "lexicon.csv")
    return found[found["target"].isin(TARGETS)]


@pytest.fixture(scope="module")
def problem(cluster, plain):
    """The problem of the plain run, made again from its folder."""
    run = Store(plain.folder)
    config = read_config(run)
    with Meter() as meter:
        return prepare(config, load(config, meter), cluster, run, meter)


def solution(problem, run, target):
    """The dictionary's coefficients of ``target`` over the solved columns."""
    columns = problem.columns
    place = {int(columns.design.columns[at]): i for i, at in enumerate(columns.solved)}
    words = run.dictionary.query("target == @target")
    coef = np.zeros(problem.X.shape[1])
    coef[[place[column] for column in words["column"]]] = words["coef"]
    return coef


@pytest.fixture(scope="module")
def demo(cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    market = "--documents 5000 --tickers 40 --sessions 120 --words 3 --planted-per-text 2"
    done = tenfold("news", "demo", *market.split(), "--noise", 0.5, "--out", folder, "--json")
    assert done.code == 0, done.err
    return done.json


def test_demo_finds_the_planted_lexicon_and_little_else(demo):
    truth = demo["truth"]
    assert truth["planted"] == 12
    assert truth["found"] >= 0.95 * truth["planted"]
    assert truth["false"] <= 0.05 * truth["words"]
    assert all(target["largest_gap"] <= TOL for target in demo["targets"].values())


def test_demo_shows_the_truth_in_its_report(demo):
    run = Run(demo["run"])
    truth = run.json("truth")
    assert truth["found"] == demo["truth"]["found"]
    assert "planted" in Path(demo["report"]).read_text()


def test_market_without_signal_gives_no_dictionary(cluster, tmp_path):
    quiet = SyntheticConfig(**{**vars(SMALL), "signal": 0.0, "noise": 1.0})
    write_market(quiet, tmp_path)
    files = (tmp_path / f"{name}.parquet" for name in ("news", "prices"))
    fit_files(*files, tmp_path / "run", "--rule", "1se", "--alpha-ratio", 4)
    run = Run(tmp_path / "run")
    _, _, lexicon = make_market(SMALL)  # the words that would have an effect
    truth = compare_with_truth(
        run.dictionary, lexicon.to_pandas().query("target in @TARGETS").reset_index()
    )
    assert truth["planted"] == 8
    assert truth["found"] <= 1
    assert truth["words"] <= 4
    for metrics in run.json("metrics")["targets"].values():
        assert metrics["oof_r2"] < 0.02


def test_small_market_gives_its_lexicon_back(plain, lexicon):
    truth = compare_with_truth(plain.dictionary, lexicon)
    assert truth["planted"] == 8
    assert truth["found"] == truth["planted"]


def test_run_folder_has_the_promised_files_and_columns(plain):
    there = {path.name for path in plain.folder.iterdir()}
    assert {
        "config.json", "manifest.json", "dictionary.parquet", "dictionary.csv", "path.parquet",
        "metrics.json", "report.html",
    } <= there  # fmt: skip
    assert "rejects.csv" not in there
    promised = ["target", "ngram", "coef", "df", "aliases", "stability", "gap"]
    assert set(promised) <= set(plain.dictionary.columns)
    text = pd.read_csv(plain.folder / "dictionary.csv")
    assert list(text.columns) == promised
    assert text["coef"].tolist() == plain.dictionary["coef"].tolist()
    assert {"target", "fold", "alpha", "gap", "nonzeros", "train_mse", "validation_mse"} <= set(
        plain.table("path").columns
    )
    metrics = plain.json("metrics")
    for target in TARGETS:
        assert {
            "oof_r2", "ic", "rank_ic", "daily_ir", "directional_accuracy", "alpha", "largest_gap",
        } <= set(metrics["targets"][target])  # fmt: skip
    assert {"stages", "total_seconds", "peak_gib", "corpus", "matrix"} <= set(metrics)


def test_config_records_options_versions_seed_and_data(plain):
    config = plain.json("config")
    assert config["path"]["alphas"] == 14
    assert config["folds"]["folds"] == 3
    assert config["seed"] == 0
    assert {"python", "ray", "numpy", "celer"} <= set(config["versions"])
    assert config["fingerprints"]["input"] == plain.json("manifest")["input"]["hash"]


def test_manifest_lists_every_file_with_its_checksum(plain, demo):
    for run in (plain, Run(demo["run"])):
        files = run.json("manifest")["files"]
        store = Store(run.folder)
        names = {name for name in store.list() if not name.startswith("work/")}
        assert set(files) == names - {"manifest.json", "run.json"}  # both written after it
        assert all(store.checksum(name) == files[name]["blake2b"] for name in files)


def test_every_point_of_the_path_is_certified(plain):
    path = plain.table("path")
    assert len(path) == len(TARGETS) * (3 + 1) * 14
    assert path["gap"].max() <= TOL
    assert (path["gap"] >= 0).all()
    for _, one in path.groupby(["target", "fold"]):
        assert (np.diff(one["alpha"]) < 0).all()
        assert one["nonzeros"].iloc[0] <= 1
        assert (np.diff(one["train_mse"]) <= 1e-9).all()


def test_chosen_alpha_has_the_lowest_validation_error(plain):
    path = plain.table("path")
    for target, metrics in plain.json("metrics")["targets"].items():
        folds = path.query("target == @target and fold >= 0")
        error = folds.groupby("alpha")["validation_mse"].mean()
        assert len(error) == 14, target
        assert error.idxmin() == pytest.approx(metrics["alpha"])
        assert error.min() == pytest.approx(metrics["cv_mse"])


def test_dictionary_is_certified_again_from_the_run_folder(plain, problem):
    for k, target in enumerate(problem.observations.target_names):
        metrics = plain.json("metrics")["targets"][target]
        coef = solution(problem, plain, target)
        lasso = on_fold(problem, k, problem.n_folds)
        proof = certify(lasso, coef, metrics["intercept"], metrics["alpha"])
        assert proof.relative_gap <= TOL
        assert np.count_nonzero(coef) == metrics["nonzeros"]


def test_scores_of_the_training_texts_are_the_solution(plain, problem, market, tmp_path):
    texts = ["--news", market / "news.parquet", "--out", tmp_path]
    done = tenfold("news", "score", plain.folder, *texts, "--json").json
    scores = pd.read_parquet(done["scores"])
    assert done["texts"] == len(scores) == SMALL.documents
    seen = scores.iloc[problem.observations.doc_first]
    words = pd.read_parquet(done["words"])
    for target in TARGETS:
        metrics = plain.json("metrics")["targets"][target]
        fitted = problem.X @ solution(problem, plain, target) + metrics["intercept"]
        np.testing.assert_allclose(seen[target], fitted, atol=1e-9)
        raw = scores[target] * metrics["std"] + metrics["mean"]
        np.testing.assert_allclose(scores[f"{target}_raw"], raw, atol=1e-12)
        shares = words.query("target == @target").groupby("row")["contribution"].sum()
        total = shares.reindex(scores["row"], fill_value=0.0) + metrics["intercept"]
        np.testing.assert_allclose(total, scores[target], atol=1e-9)
        assert set(words.query("target == @target")["ngram"]) <= set(
            plain.dictionary.query("target == @target")["ngram"]
        )


def test_one_text_is_explained_word_by_word(plain):
    word = plain.dictionary.query("target == 'volume_change'").iloc[0]
    arguments = ["news", "score", plain.folder, "--text", f"zzz {word.ngram} zzz"]
    rows = {row["target"]: row for row in tenfold(*arguments, "--json").json["scores"]}
    row = rows["volume_change"]
    metrics = plain.json("metrics")["targets"]["volume_change"]
    parts = [part["contribution"] for part in row["words"]]
    assert row["score"] == pytest.approx(sum(parts) + metrics["intercept"])
    assert row["words"][0]["ngram"] == word.ngram
    assert np.sign(row["words"][0]["contribution"]) == np.sign(word.coef)
    plain_text = tenfold(*arguments).out
    assert f"volume_change: {row['score']:+.4f}" in plain_text
    assert word.ngram in plain_text


@pytest.mark.long
def test_diff_is_empty_for_a_run_with_itself_and_not_for_another(plain, fit):
    same = tenfold("news", "diff", plain.folder, plain.folder, "--json").json
    assert same["changed"] == 0
    assert all(row["overlap"] == 1 and row["sign_flips"] == 0 for row in same["targets"])
    assert "nothing to show" in tenfold("news", "diff", plain.folder, plain.folder).out
    other = fit("--fold-kind", "shuffled", "--seed", 1, "--rule", "1se", "--scale", "std")
    changed = tenfold("news", "diff", plain.folder, other.folder, "--json").json
    assert changed["changed"] > 0
    assert {row["target"] for row in changed["targets"]} == set(TARGETS)


def test_engines_agree_on_the_audit(plain):
    outcome = tenfold("news", "audit", plain.folder, "--json")
    assert outcome.code == 0
    result = outcome.json
    assert result["agree"]
    assert {row["engine"] for row in result["rows"]} == {"newton", "celer", "sklearn"}
    assert result["largest_gap"] <= TOL
    assert result["largest_coefficient_difference"] <= 1e-4
    assert result["smallest_support_overlap"] == 1
    assert "engines agree" in tenfold("news", "audit", plain.folder, "--engines", "newton").out


def test_report_is_one_self_contained_page(plain):
    page = (plain.folder / "report.html").read_text()
    assert "<html" in page
    assert all(target in page for target in TARGETS)
    assert all(word in page for _, word in plain.words)
    loaded = Loaded()
    loaded.feed(page)
    assert loaded.addresses == []


def test_second_run_reuses_everything_and_gives_the_same_bytes(plain, market):
    before = {name: plain.bytes(name) for name in ("dictionary.parquet", "dictionary.csv")}
    files = (market / f"{name}.parquet" for name in ("news", "prices"))
    err = fit_files(*files, plain.folder, "--workers", 2).err
    for stage in ("count n-grams", "assemble matrix", "solve path"):
        (line,) = (line for line in err.splitlines() if line.startswith(f"{stage}: "))
        done, count = re.search(r"(\d+)/\d+ \w+ · (\d+) from an earlier run", line).groups()
        assert done == count
    assert before == {name: plain.bytes(name) for name in before}


def test_workers_and_shards_change_no_byte(fit, plain):
    other = fit("--workers", 1, "--shard-rows", 300)
    assert other.bytes() == plain.bytes()
    paths = (run.table("path").drop(columns="seconds") for run in (other, plain))
    pd.testing.assert_frame_equal(*paths)


def test_stretch_changes_no_word(fit, plain):
    other = fit("--stretch", 3)
    merged = other.dictionary.merge(plain.dictionary, on=["target", "ngram"], how="outer")
    largest = plain.dictionary["coef"].abs().max()
    assert (merged["coef_x"] - merged["coef_y"]).abs().max() <= 1e-3 * largest
    assert other.table("path")["gap"].max() <= TOL


def test_hashing_recovers_the_words_of_the_exact_vocabulary(fit, plain):
    hashed = fit("--hash-bits", 22)
    got, expected = (
        {
            (word.target, name): word.coef
            for word in run.dictionary.itertuples()
            for name in (word.ngram, *word.aliases)
        }
        for run in (hashed, plain)
    )
    largest = max(map(abs, expected.values()))
    for key in {*got, *expected}:  # a rare n-gram may share a column, and move others a little
        assert got.get(key, 0.0) == pytest.approx(expected.get(key, 0.0), abs=0.02 * largest)
    strongest = hashed.dictionary.query("target == 'volume_change'").iloc[0]
    arguments = ["news", "score", hashed.folder, "--text", f"zzz {strongest.ngram}", "--json"]
    row = tenfold(*arguments).json["scores"][1]
    assert row["words"][0]["ngram"] == strongest.ngram


def test_days_are_rows_and_find_the_lexicon(fit, lexicon):
    run = fit("--observations", "days", "--weighting", "counts")
    corpus = run.json("metrics")["corpus"]
    assert corpus["observations"] < corpus["documents"] == SMALL.documents
    truth = compare_with_truth(run.dictionary, lexicon)
    assert truth["found"] >= 0.75 * truth["planted"]


def test_lagged_targets_have_no_words_where_news_have_no_late_effect(fit):
    run = fit("--lags", 1, "--horizon", 1, "--rule", "1se", targets=("volume_change",))
    targets = run.json("metrics")["targets"]
    assert set(targets) == {"volume_change", "volume_change+1"}
    assert targets["volume_change"]["nonzeros"] >= 4
    assert targets["volume_change+1"]["n_rows"] < targets["volume_change"]["n_rows"]
    assert targets["volume_change+1"]["oof_r2"] < targets["volume_change"]["oof_r2"] / 4


def test_features_and_fundamentals_stand_beside_the_words(fit):
    options = ["--features", "per,volume", "--horizon", 2]
    run = fit(*options, targets=("change:per", "return"))
    targets = run.json("metrics")["targets"]
    assert set(targets) == {"change:per", "return"}
    # A session's PER moves with its price, so the same words move both.
    words = run.dictionary[~run.dictionary["ngram"].str.startswith("feature:")]
    shared = words.pivot_table(index="ngram", columns="target", values="coef").dropna()
    assert len(shared) >= 2
    assert (np.sign(shared["change:per"]) == np.sign(shared["return"])).all()
    assert run.json("config")["target"]["features"] == ["per", "volume"]


@pytest.mark.long
def test_stability_drops_words_and_keeps_the_planted(fit, plain, lexicon):
    run = fit("--stability", 6, "--min-stability", 0.8)
    stability = run.dictionary["stability"]
    assert stability.between(0.8, 1).all()
    assert plain.dictionary["stability"].isna().all()
    truth = compare_with_truth(run.dictionary, lexicon)
    assert truth["found"] >= 0.75 * truth["planted"]
    assert truth["false"] <= compare_with_truth(plain.dictionary, lexicon)["false"] / 2
    unstable = sum(m["unstable"] for m in run.json("metrics")["targets"].values())
    assert unstable + len(run.dictionary) == len(plain.dictionary)


def test_texts_without_a_word_that_varies_are_refused(cluster, market, tmp_path):
    news = pq.read_table(market / "news.parquet").to_pandas()
    for text in ("same {}", "{}"):
        texts = [text.format(f"once{i}") for i in range(len(news))]
        news.assign(text=texts).to_parquet(tmp_path / "news.parquet")
        files = ["--news", tmp_path / "news.parquet", "--prices", market / "prices.parquet"]
        outcome = tenfold("news", "fit", *files, "--out", tmp_path / "run")
        assert outcome.code == 2
        assert "no n-gram" in outcome.err.splitlines()[-1]
        assert "--min-df" in outcome.err.splitlines()[-1]
        assert not (tmp_path / "run" / "manifest.json").exists()


def test_bad_rows_are_dropped_and_listed(cluster, market, plain, tmp_path):
    news = pq.read_table(market / "news.parquet").to_pandas()
    prices = pq.read_table(market / "prices.parquet").to_pandas()
    bad = news.iloc[[5, 6]].assign(text=["", "a\x00b"])
    unknown = news.iloc[[7]].assign(ticker="NOPE")
    pd.concat([news, bad, unknown]).to_csv(tmp_path / "news.csv", index=False)
    twice = pd.concat([prices, prices.iloc[[9]], prices.iloc[[3]].assign(close=-1.0)])
    twice.to_csv(tmp_path / "prices.csv", index=False)
    out = tmp_path / "run"
    fit_files(tmp_path / "news.csv", tmp_path / "prices.csv", out, "--bad-rows", "drop")
    rejects = pd.read_csv(out / "rejects.csv")
    n, m = len(news), len(prices)
    assert [*zip(rejects["row"], rejects["column"], strict=True)] == [
        (n + 1, "text"), (n + 2, "text"), (m + 2, "close"), (m + 1, "date"), (n + 3, "ticker"),
    ]  # fmt: skip
    assert Run(out).words == plain.words
    assert Run(out).json("metrics")["corpus"]["rejected"] == 5
    # Good files again in the same folder: the list of bad rows is not theirs.
    fit_files(market / "news.parquet", market / "prices.parquet", out)
    assert not (out / "rejects.csv").exists()
    assert Run(out).bytes() == plain.bytes()


@pytest.mark.long
def test_korean_market_is_read_by_morphemes(cluster, tmp_path):
    pytest.importorskip("kiwipiepy", reason="needs the korean extra")
    config = SyntheticConfig(
        documents=1_200, tickers=12, sessions=60, words=2, noise=0.3, exchange="XKRX", repeats=0.0
    )
    news, prices, lexicon = make_market(config)
    planted = lexicon.to_pandas().query("target == 'volume_change'")
    korean = dict(zip(planted["ngram"], ("급등", "폭락"), strict=True))
    filler = ["은행", "회사", "공장", "수출", "환율", "금리", "투자", "시장", "정부", "기술"]
    rng = np.random.default_rng(0)
    texts = []
    for text in news["text"].to_pylist():
        found = [korean[word] for word in text.split() if word in korean]
        words = rng.permutation([*rng.choice(filler, 5), *found])
        texts.append(" ".join(word + str(rng.choice(["은", "에서", "을", "과"])) for word in words))
    news = news.set_column(2, "text", [texts])
    pq.write_table(news, tmp_path / "news.parquet")
    pq.write_table(prices, tmp_path / "prices.parquet")
    files = (tmp_path / "news.parquet", tmp_path / "prices.parquet", tmp_path / "run")
    fit_files(*files, "--exchange", "XKRX", "--tokenizer", "korean", targets=("volume_change",))
    found = Run(tmp_path / "run").dictionary.set_index("ngram")["coef"]
    signs = planted.set_index("ngram")["weight"] > 0
    for word, morpheme in korean.items():
        assert (found[morpheme] > 0) == signs[word]


@pytest.mark.skipif(not REAL.is_dir(), reason="the StockNet texts are not on this machine")
@pytest.mark.long
def test_real_texts_go_through(cluster, tmp_path):
    options = ["--alphas", 8, "--alpha-ratio", 8, "--ngram-max", 3, "--folds", 5]
    files = (REAL / "news.parquet", REAL / "prices.parquet", tmp_path / "run")
    fit_files(*files, *options, targets=("volume_change",))
    run = Run(tmp_path / "run")
    metrics = run.json("metrics")
    assert metrics["corpus"]["documents"] > 100_000
    assert metrics["matrix"]["ngrams"] > 100_000
    assert run.table("path")["gap"].max() <= TOL
    assert metrics["targets"]["volume_change"]["oof_r2"] > 0
    assert "earnings" in set(run.dictionary["ngram"])
