"""The command itself: help, streams, exit codes, and what it says to a folder that is no run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import tenfold

from pipelines.news.synthetic import SyntheticConfig, write_market

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "news fit": "--alpha-ratio",
    "news demo": "--planted-per-text",
    "news score": "--text",
    "news diff": "runs/second",
    "news audit": "--engines",
    "bench lasso": "--peers",
    "profile": "--layouts",
    "doctor": "--address",
    "node-resources": "ray start",
}
TINY = SyntheticConfig(documents=1_000, tickers=10, sessions=60, words=2, noise=0.3)
FIT = ["--folds", 2, "--alphas", 6, "--alpha-ratio", 6, "--targets", "volume_change"]
WRONG = """
--documents=0 --tickers=1 --sessions=2 --words=0 --signal=-1 --noise=nan --repeats=1 --seed=-1
--after-hours=2 --exchange=XXXX --first=yesterday --planted-per-text=-1 --workers=0 --out=
--out=s3://bucket/demo
"""


@pytest.fixture(scope="module")
def run(cluster, tmp_path_factory):
    """The folder of a small finished run, with its market beside it."""
    folder = tmp_path_factory.mktemp("cli")
    write_market(TINY, folder)
    files = ["--news", folder / "news.parquet", "--prices", folder / "prices.parquet"]
    done = tenfold("news", "fit", *files, *FIT, "--out", folder / "run")
    assert done.code == 0, done.err
    return folder / "run"


@pytest.fixture
def spoiled(run, tmp_path):
    """A copy of the run, to be spoiled."""
    shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("work"))
    return tmp_path / "copy"


def refusal(*arguments):
    outcome = tenfold(*arguments)
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    return outcome.err.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_the_options(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    outcome = tenfold(*command.split(), "--help")
    assert outcome.code == 0
    assert "Example: " in outcome.out
    assert f"tenfold {command}" in outcome.out.partition("Example: ")[2]
    assert COMMANDS[command] in outcome.out


@pytest.mark.parametrize("command", ["fit", "score", "diff", "audit"])
def test_required_arguments_are_asked_for(command):
    outcome = tenfold("news", command)
    assert outcome.code == 2
    assert "Missing" in outcome.err


@pytest.mark.parametrize("command", ["nws", "news fitt", "news fit --nwes x"])
def test_unknown_command_or_option_is_refused(command):
    outcome = tenfold(*command.split())
    assert outcome.code == 2
    assert "No such" in outcome.err


def test_module_and_script_are_the_same_command():
    script = Path(sys.executable).with_name("tenfold")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    outputs = [
        subprocess.run(
            [*command, "node-resources"], env=environment, capture_output=True, check=True
        ).stdout
        for command in ([script], [sys.executable, "-m", "pipelines"])
    ]
    assert outputs[0] == outputs[1]
    assert isinstance(json.loads(outputs[0]), dict)


def test_doctor_prints_a_check_a_line_and_one_json_object(cluster):
    checks = tenfold("doctor", "--json").json["checks"]
    assert {check["status"] for check in checks} <= {"ok", "missing", "wrong"}
    assert all(check["remedy"] for check in checks if check["status"] != "ok")
    table = tenfold("doctor").out
    assert all(check["name"] in table for check in checks)


def test_fit_prints_targets_report_and_run_folder(run):
    files = ["--news", run.parent / "news.parquet", "--prices", run.parent / "prices.parquet"]
    plain = tenfold("news", "fit", *files, *FIT, "--out", run)
    assert plain.out.splitlines()[-2:] == [f"report: {run}/report.html", f"run folder: {run}"]
    assert "volume_change" in plain.out
    assert "read 1,000 news" in plain.err
    line = tenfold("news", "fit", *files, *FIT, "--out", run, "--json").json
    assert line["run"] == str(run)
    assert Path(line["report"]).is_file()
    assert line["targets"]["volume_change"]["largest_gap"] <= 1e-6


def test_score_needs_exactly_one_of_texts_and_text(run):
    assert "one of the two" in refusal("news", "score", run)
    assert "one of the two" in refusal("news", "score", run, "--text", "a", "--news", "b.csv")


def test_score_refuses_what_it_cannot_read_or_write(run, tmp_path):
    news = run.parent / "news.parquet"
    message = refusal("news", "score", run, "--news", news, "--text-column", "body")
    assert "no column 'body'" in message
    assert "--text-column" in message
    assert "no such file" in refusal("news", "score", run, "--news", "gone.csv")
    assert "output folder" in refusal("news", "score", run, "--news", news, "--out", news)
    assert "--bad-rows" in refusal("news", "score", run, "--news", news, "--bad-rows", "keep")
    empty = tmp_path / "empty.csv"
    empty.write_text("text\n")
    assert "no rows" in refusal("news", "score", run, "--news", empty, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_score_keeps_good_rows_and_lists_bad_ones(run, tmp_path):
    texts = tmp_path / "new.csv"
    texts.write_bytes(b"text\nprofits rise\n\xff\xfe\nlosses fall\n")
    assert "row 2, column 'text'" in refusal("news", "score", run, "--news", texts)
    where = ["--news", texts, "--out", tmp_path / "scores"]
    done = tenfold("news", "score", run, *where, "--bad-rows", "drop", "--json").json
    assert (done["texts"], done["rejected"]) == (2, 1)
    assert Path(done["scores"]).is_file()
    assert (tmp_path / "scores" / "rejects.parquet").is_file()


def test_text_without_a_known_word_scores_the_intercept(run):
    (row,) = tenfold("news", "score", run, "--text", "", "--json").json["scores"]
    metrics = json.loads((run / "metrics.json").read_text())["targets"]["volume_change"]
    assert row["score"] == pytest.approx(metrics["intercept"])
    assert row["words"] == []


@pytest.mark.parametrize(
    "command", ["score {} --text profit", "diff {} {}", "audit {}"], ids=["score", "diff", "audit"]
)
def test_folder_that_is_no_run_is_refused(command, run, tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere", run.parent / "news.parquet"):
        message = refusal("news", *(part.format(folder) for part in command.split()))
        assert f"{folder}: no finished news run" in message
        assert "tenfold news fit" in message


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("dictionary.parquet", "score {} --text profit"),
        ("dictionary.parquet", "diff {} {}"),
        ("model/model.json", "score {} --text profit"),
        ("model/columns.parquet", "score {} --text profit"),
        ("config.json", "audit {}"),
        ("metrics.json", "audit {}"),
        ("manifest.json", "audit {}"),
        ("manifest.json", "diff {} {}"),
    ],
)
def test_damaged_run_is_refused_by_the_file(spoiled, file, command):
    arguments = [part.format(spoiled) for part in command.split()]
    path = spoiled / file
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"{}", b"[]"):
        path.write_bytes(content)
        message = refusal("news", *arguments)
        assert f"{spoiled}/{file}" in message
        assert "tenfold news fit" in message
    path.unlink()
    assert str(spoiled) in refusal("news", *arguments)


def test_audit_refuses_when_its_input_is_gone(spoiled, run):
    news, kept = run.parent / "news.parquet", run.parent / "kept.parquet"
    news.rename(kept)
    try:
        assert f"{news}: no such file" in refusal("news", "audit", spoiled)
    finally:
        kept.rename(news)


@pytest.mark.parametrize(
    "option", ["--engines=lars", "--ratios=0.5", "--ratios=ten", "--audit-tol=0", "--ratios=nan"]
)
def test_audit_refuses_impossible_values(run, option):
    assert option.partition("=")[0] in refusal("news", "audit", run, option)


@pytest.mark.parametrize("option", WRONG.split())
def test_demo_refuses_impossible_values(tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    assert option.partition("=")[0] in refusal("news", "demo", "--out", "demo", option)
    assert not [*tmp_path.rglob("*.parquet")]


def test_demo_refuses_a_file_in_the_way(tmp_path):
    (tmp_path / "taken").write_text("here")
    assert "output folder" in refusal("news", "demo", "--out", tmp_path / "taken")
