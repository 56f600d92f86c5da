"""The news job through ``ray job submit``, on a cluster that ``ray start --head`` made."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from command import tenfold

from cluster.token import token_path
from pipelines.news.synthetic import SyntheticConfig, write_market

ROOT = Path(__file__).parents[1]
MARKET = SyntheticConfig(documents=4_000, tickers=20, sessions=80, words=3)
FIT = ["--targets", "excess_return,log_range", "--folds", "3", "--alphas", "30", "--stretch", "3"]
FIT += ["--shard-rows", "1500"]
METRICS = ("shards_done", "units_done", "rows", "progress", "workers", "largest_gap")


def answer(address, token=None):
    request = urllib.request.Request(address)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=10) as reply:
        return reply.read().decode()


def metrics_of(dashboard, token):
    """Return all lines of the metrics endpoints that the cluster tells Prometheus about."""
    services = json.loads(answer(f"{dashboard}/api/prometheus/sd", token))
    lines = []
    for target in {target for service in services for target in service["targets"]}:
        # Prometheus, too, goes on when one of several endpoints is not up (yet).
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            lines += answer(f"http://{target}/metrics", token).splitlines()
    return lines


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """A clean copy of what a clone holds, without environments and outputs."""
    folder = tmp_path_factory.mktemp("clone")
    for package in ("cluster", "actors", "pipelines"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=skip)
    return folder


@pytest.fixture(scope="module")
def submitted(ray_head, code, tmp_path_factory):
    """Submit a fit; return its folder, its log, and the metrics seen while it ran."""
    folder = tmp_path_factory.mktemp("submitted")
    write_market(MARKET, folder)
    files = [f"--{name}={folder / name}.parquet" for name in ("news", "prices")]
    ray = Path(sys.executable).with_name("ray")
    command = [ray, "job", "submit", "--working-dir", code, "--", sys.executable, "-m", "pipelines"]
    command += ["news", "fit", *files, *FIT, "--out", folder / "run", "--json"]
    token, seen, log = token_path().read_text(), set(), folder / "log"
    with log.open("w") as sink:
        job = subprocess.Popen(command, env=ray_head, stdout=sink, stderr=sink, text=True)
        deadline = time.monotonic() + 150
        while job.poll() is None and time.monotonic() < deadline:
            seen |= set(metrics_of(ray_head["RAY_ADDRESS"], token))
            time.sleep(0.5)
    assert job.poll() == 0, log.read_text()
    return folder, log.read_text(), seen


def test_submitted_job_shows_progress_in_its_log(submitted):
    folder, log, _ = submitted
    assert re.search(r"read 4,000 news and 1,600 price rows, 0 rejected", log)
    assert "2 cores" in log
    assert re.search(r"^count n-grams: 3/3 shards", log, re.MULTILINE)
    assert re.search(r"^solve path: 80/80 units .* largest gap \d\.\de-\d+", log, re.MULTILINE)
    (line,) = (line for line in log.splitlines() if line.startswith('{"run": '))
    assert json.loads(line)["run"] == str(folder / "run")
    assert "succeeded" in log
    assert token_path().read_text() not in log


def test_log_of_the_job_reads_without_a_terminal(submitted, ray_head):
    dashboard, token = ray_head["RAY_ADDRESS"], token_path().read_text()
    jobs = json.loads(answer(f"{dashboard}/api/jobs/", token))
    (job,) = (job for job in jobs if "news fit" in job["entrypoint"])
    log = json.loads(answer(f"{dashboard}/api/jobs/{job['submission_id']}/logs", token))["logs"]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", log), "colours, bars, carriage returns"
    assert "━" not in log
    stages = Counter(re.findall(r"^([a-z][a-z -]+): \d+/\d+ ", log, re.MULTILINE))
    assert {"count n-grams", "solve path"} <= stages.keys()
    assert max(stages.values()) < 20


def test_submitted_job_gives_the_bytes_of_an_embedded_run(submitted, cluster, tmp_path):
    folder, _, _ = submitted
    files = [f"--{name}={folder / name}.parquet" for name in ("news", "prices")]
    done = tenfold("news", "fit", *files, *FIT, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    for name in ("dictionary.parquet", "dictionary.csv"):
        assert (folder / "run" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_metrics_of_the_job_are_in_the_metrics_endpoint(submitted):
    _, _, seen = submitted
    for name in METRICS:
        values = [line for line in seen if line.startswith(f"ray_tenfold_{name}")]
        assert values, name
        assert any("stage=" in line and float(line.rsplit(" ", 1)[1]) > 0 for line in values)


def test_token_is_in_no_file_of_the_job_or_of_its_cluster(submitted, ray_head):
    folder, _, _ = submitted
    token = token_path().read_bytes()
    session = [*Path(ray_head["RAY_TMPDIR"]).rglob("*")]
    assert any("runtime_resources" in path.parts for path in session)
    files = [path for path in (*session, *folder.rglob("*")) if path.is_file()]
    assert (folder / "run" / "report.html") in files
    assert not [path for path in files if token in path.read_bytes()]


@pytest.mark.parametrize("token", [None, "0" * 64])
def test_job_cannot_be_submitted_without_the_token(ray_head, tmp_path, token):
    environment = {**ray_head, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}
    environment |= {"RAY_AUTH_TOKEN": token} if token else {}
    ray = Path(sys.executable).with_name("ray")
    done = subprocess.run(
        [ray, "job", "submit", "--", "touch", tmp_path / "ran"],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode != 0
    expected = r"authenticat\w+ token" if token else "token for the cluster is available in"
    assert re.search(expected, said, re.IGNORECASE), said
    assert "0" * 64 not in said
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("token", [None, "0" * 64])
def test_jobs_cannot_be_listed_without_the_token(ray_head, token):
    with pytest.raises(urllib.error.HTTPError) as refused:
        answer(f"{ray_head['RAY_ADDRESS']}/api/jobs/", token)
    assert refused.value.code in (401, 403)
    if token is None:
        assert refused.value.code == 401
    jobs = json.loads(answer(f"{ray_head['RAY_ADDRESS']}/api/jobs/", token_path().read_text()))
    assert isinstance(jobs, list)


def test_submitted_job_runs_the_code_it_brings_and_shows_progress(ray_head, tmp_path):
    folder = tmp_path / "code"
    (folder / "cluster").mkdir(parents=True)
    for source in (ROOT / "cluster").glob("*.py"):
        (folder / "cluster" / source.name).write_text(source.read_text())
    (folder / "work.py").write_text(
        "import cluster\n"
        "def note(number, store):\n"
        "    store.write_json(f'{number}.json', cluster.__file__)\n"
        "    return {'rows': 2, 'files': [f'{number}.json']}\n"
    )
    (folder / "job.py").write_text(
        "import sys\n"
        "from cluster.connect import connect\n"
        "from cluster.shards import map_shards\n"
        "from cluster.storage import Store\n"
        "from work import note\n"
        "with connect() as cluster:\n"
        "    manifest = map_shards(cluster, note, range(3), Store(sys.argv[1]),\n"
        "                          fingerprint='f', label='job')\n"
        "    print('embedded', cluster.embedded, 'rows', manifest.rows)\n"
    )
    ray, out = Path(sys.executable).with_name("ray"), tmp_path / "out"
    command = [ray, "job", "submit", "--working-dir", folder, "--", sys.executable, "job.py", out]
    done = subprocess.run(command, env=ray_head, capture_output=True, text=True, timeout=120)
    logs = done.stdout + done.stderr
    assert done.returncode == 0, logs
    assert "embedded False rows 6" in logs
    assert "job: 3/3 shards" in logs
    assert "working_dir_files" in json.loads((out / "0.json").read_text())
