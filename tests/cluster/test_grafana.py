"""The shipped Grafana board, each of its queries answered by a real Prometheus during real work."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import ray
from remote_work import Solver, Task, write_rows

from actors.memory_bank.actor import ShardedBank
from actors.memory_bank.index import MemoryBank
from cluster.run_record import recorded
from cluster.shards import map_shards
from cluster.storage import Store
from cluster.units import Unit, solve_units
from pipelines.fpcb.train import show_epoch

ROOT = Path(__file__).parents[2]
BOARD = json.loads((ROOT / "cluster/grafana/tenfold.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
# What Grafana fills in: a window of several scrapes, and "All" runs.
VARIABLES = {"$__rate_interval": "1m", "$run": ".*"}
TIMEOUT_S = 60.0


def filled_in(query):
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query, "a variable that the board does not define"
    return query


class Prometheus:
    """Scrapes one Ray every second; asked over HTTP."""

    def __init__(self, binary, folder, targets):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        shipped = (ROOT / "cluster/prometheus.yml").read_text()
        config = re.sub(r'files: \[".*"\]', f'files: ["{targets}"]', shipped)
        config = config.replace("scrape_interval: 10s", "scrape_interval: 1s")
        assert str(targets) in config
        (folder / "prometheus.yml").write_text(config.replace("interval: 30s", "interval: 1s"))
        self.log = folder / "log"
        with self.log.open("w") as sink:
            self.process = subprocess.Popen(
                [
                    binary,
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={self.address}",
                ],
                stdout=sink,
                stderr=sink,
            )

    def ask(self, query):
        """Return the values a query has now."""
        where = f"http://{self.address}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(where, timeout=10) as reply:
            found = json.loads(reply.read())
        assert found["status"] == "success"
        return [float(series["value"][1]) for series in found["data"]["result"]]

    def wait_until_up(self):
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if sum(self.ask("up")) >= 1:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise TimeoutError(self.log.read_text())


@pytest.fixture(scope="module")
def prometheus(cluster, tmp_path_factory):
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("needs the program prometheus: apt-get install prometheus")
    session = Path(ray._private.worker.global_worker.node.get_session_dir_path())
    targets = session / "prom_metrics_service_discovery.json"
    server = Prometheus(binary, tmp_path_factory.mktemp("prometheus"), targets)
    try:
        server.wait_until_up()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(timeout=30)


def work(cluster, folder):
    """Do a little of everything that has metrics, a shard and a unit that fail once among it."""
    show_epoch({"epoch": 0, "loss": 0.5, "val_ap": 0.9, "panels_per_s": 100.0}, "night")
    tasks = [Task(k, folder / "flag" if k == 1 else None, "raised") for k in range(6)]
    map_shards(cluster, write_rows, tasks, Store(folder / "rows"), fingerprint="f", label="rows")
    units = [Unit(f"u{k}", {"k": k, "flag": folder / "unit" if k == 2 else None, "how": "raised"})
             for k in range(6)]  # fmt: skip
    store = Store(folder / "units")
    solve_units(cluster, Solver.remote, units, store, workers=1, fingerprint="f", label="units")
    rng = np.random.default_rng(1)
    MemoryBank(rng.standard_normal((500, 8), dtype=np.float32)).save(store, "bank")
    with ShardedBank.open(cluster, store, "bank") as bank:
        for _ in range(8):
            bank.search(rng.standard_normal((200, 8), dtype=np.float32), 3)
            time.sleep(0.5)


@pytest.mark.long
def test_every_query_of_the_board_has_an_answer_while_jobs_run(cluster, prometheus, tmp_path):
    silent, finite, over = {filled_in(query) for query in QUERIES}, {}, threading.Event()

    def watch():
        while silent:
            for query in sorted(silent):
                values = [value for value in prometheus.ask(query) if np.isfinite(value)]
                if values:
                    finite[query] = values
                    silent.discard(query)
            if over.wait(0.5):
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with recorded(Store(tmp_path / "night"), ["fpcb", "run"]):
            work(cluster, tmp_path)
        deadline = time.monotonic() + 20
        while silent and time.monotonic() < deadline:
            time.sleep(0.3)
    finally:
        over.set()
        watcher.join()
    assert not silent, "no data for these"
    assert len(finite) == len(set(QUERIES)) > 20


@pytest.mark.long
def test_metrics_name_the_run_and_the_stage(prometheus, tmp_path):
    # After the work above: Ray keeps what a driver counted for as long as it is there.
    def last(metric):
        return prometheus.ask(
            f'sum(last_over_time(ray_tenfold_{metric}{{run="night"}}[10m])) by (stage)'
        )

    assert last("progress") == [1, 1]
    assert last("shards_retried_total") == [1]
    assert last("units_done_total") == [6]


def test_board_is_what_grafana_imports():
    assert BOARD["schemaVersion"] >= 36  # data sources by uid
    assert BOARD["title"]
    assert BOARD["uid"]
    variables = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert set(re.findall(r"\$(\w+)", " ".join(QUERIES))) <= {*variables, "__rate_interval"}
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in PANELS:
        assert panel["title"], panel
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        letters = [target["refId"] for target in panel["targets"]]
        assert letters
        assert len(letters) == len(set(letters))


def test_panels_of_the_board_neither_overlap_nor_stick_out():
    taken = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (column, line)
            for column in range(place["x"], place["x"] + place["w"])
            for line in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
