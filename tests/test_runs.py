"""`tenfold runs` and `tenfold resume`: what is listed of runs, and a killed one to its end."""

import json
import shlex
from pathlib import Path

import pytest
from command import tenfold
from driver import Driver

from pipelines.news.synthetic import SyntheticConfig, write_market

PANELS = ("--panels", "300", "--frames", "30", "--shard-size", "10", "--seed", "3")
GENERATE = ("fpcb", "generate", *PANELS, "--workers", "2")
MARKET = SyntheticConfig(documents=2_000, tickers=20, sessions=80, words=3)
FIT = ("--targets", "log_range", "--folds", "2", "--alphas", "16", "--stretch", "1")
FIT += ("--alpha-ratio", "12", "--shard-rows", "1000", "--workers", "2")


def one_run(folder):
    """Return what `tenfold runs` says of the one run in ``folder``."""
    (run,) = tenfold("runs", folder, "--json").json["runs"]
    return run


def resumed(folder):
    outcome = tenfold("resume", folder)
    assert outcome.code == 0, outcome.err
    return outcome


def refused(folder):
    outcome = tenfold("resume", folder)
    assert outcome.code == 2, outcome
    assert "Traceback" not in outcome.err
    return outcome.err.splitlines()[-1]


@pytest.fixture(autouse=True)
def stays_here(monkeypatch):
    monkeypatch.chdir(Path.cwd())  # which resume leaves


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market")
    write_market(MARKET, folder)
    return folder


@pytest.fixture(scope="module")
def made(cluster, tmp_path_factory):
    """A finished data set."""
    out = tmp_path_factory.mktemp("made") / "panels"
    outcome = tenfold(*GENERATE, "--out", out)
    assert outcome.code == 0, outcome.err
    return out


@pytest.fixture
def edited(made, tmp_path):
    """A run that was stopped, as another record says."""

    def edit(**changes):
        known = json.loads((made / "run.json").read_text())
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "run.json").write_text(
            json.dumps({**known, "state": "stopped", **changes})
        )
        return tmp_path / "copy"

    return edit


def files_of(folder, pattern):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern)}


def test_killed_generate_is_listed_and_resumed_to_the_same_bytes(made, tmp_path, join_environment):
    out = tmp_path / "panels"
    driver = Driver(out, join_environment, *GENERATE, "--out", out)
    driver.wait_for(lambda: driver.finished() >= 3)
    running = one_run(tmp_path)
    assert (running["state"], running["stage"]) == ("running", "generate panels")
    assert running["pid"] == driver.process.pid
    assert "running" in refused(out)
    driver.kill()
    done = driver.finished()
    lost = one_run(tmp_path)
    total = json.loads((made / "run.json").read_text())["total"]
    assert (lost["state"], lost["total"]) == ("stopped", total)
    assert f"Resume with: tenfold resume {out}" in tenfold("runs", tmp_path).out

    outcome = resumed(out)
    assert f"{done} from an earlier run" in outcome.err
    assert "300 panels" in outcome.out
    finished = one_run(tmp_path)
    assert (finished["state"], finished["attempts"], finished["done"]) == ("finished", 2, total)
    assert finished["seconds"] > lost["seconds"]
    assert files_of(out, "*.parquet") == files_of(made, "*.parquet")


@pytest.mark.long
def test_killed_fit_is_resumed_to_the_same_bytes(market, tmp_path, join_environment, cluster):
    files = [f"--{name}={market / name}.parquet" for name in ("news", "prices")]
    whole = tenfold("news", "fit", *files, *FIT, "--out", tmp_path / "whole")
    assert whole.code == 0, whole.err
    out = tmp_path / "killed"
    driver = Driver(out, join_environment, "news", "fit", *files, *FIT, "--out", out)
    driver.wait_for(lambda: driver.finished("work/path") >= 5)
    driver.kill()
    outcome = resumed(out)
    assert "from an earlier run" in outcome.err
    assert outcome.out.splitlines()[-1] == f"run folder: {out}"
    for name in ("dictionary.parquet", "dictionary.csv", "coef_path.parquet"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    newest, *_ = tenfold("runs", tmp_path, "--json").json["runs"]
    assert newest["run"] == str(out)
    assert "rank IC" in newest["headline"]
    assert newest["cpu_seconds"] > 0

    # What it read has changed since: the file is named, and nothing is overwritten.
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**record, "state": "failed"}))
    (market / "prices.parquet").write_bytes(b"other")
    assert f"{market}/prices.parquet: input has changed" in refused(out)
    (market / "prices.parquet").unlink()
    assert f"{market}/prices.parquet: input is gone" in refused(out)
    # A finished run needs none of it.
    assert resumed(tmp_path / "whole").out == f"{tmp_path}/whole is finished: nothing to do\n"


def test_folder_without_a_run_is_refused(tmp_path):
    assert f"{tmp_path}: no run" in refused(tmp_path)
    assert "no run" in refused(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    assert "without a record" in refused(tmp_path)
    assert one_run(tmp_path)["state"] == "unknown"


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["doctor"],
        ["resume", "."],
        ["fpcb", "export", "data", "--out=/etc"],
        ["rm", "-rf", "/"],
        "news fit --out=x",
        None,
    ],
    ids=str,
)
def test_record_with_a_command_that_is_no_job_is_refused(edited, command):
    assert "run.json: no command of Tenfold's" in refused(edited(command=command))


def test_run_with_options_of_python_alone_says_how_to_go_on(edited):
    assert "Run the same call again" in refused(edited(command=["fpcb", "generate"]))


def test_other_version_is_told(edited):
    folder = edited(tenfold="0.0.9", code="0" * 16, command=["fpcb", "generate", "--panels=0",
                                                             "--out=x"])  # fmt: skip
    outcome = tenfold("resume", folder)
    assert outcome.code == 2  # of the command itself: no panels
    assert "another version of Tenfold (0.0.9" in outcome.err
    assert "--panels" in outcome.err.splitlines()[-1]


def test_command_is_shown_as_a_shell_takes_it(edited):
    folder = edited(command=["fpcb", "generate", "--scenario=a b", "--out=x"])
    line = next(line for line in tenfold("resume", folder).err.splitlines() if "resuming" in line)
    assert shlex.split(line)[-2:] == ["--scenario=a b", f"--out={folder}"]


def test_runs_are_listed_newest_first(edited, made, tmp_path):
    folder = edited(started="2020-01-01T00:00:00+00:00")
    runs = tenfold("runs", tmp_path, made.parent, "--json").json["runs"]
    assert [run["run"] for run in runs] == [str(made), str(folder)]
    lines = tenfold("runs", tmp_path, made.parent).out.splitlines()
    assert [
        word for word in ("run", "state", "progress", "CPU", "peak") if word not in lines[1]
    ] == []
    assert tenfold("runs", tmp_path / "nowhere").out == "nothing to show\n"


def test_file_in_the_way_is_no_run(tmp_path):
    (tmp_path / "file").write_text("x")
    assert tenfold("runs", tmp_path / "file", "--json").json == {"runs": []}
