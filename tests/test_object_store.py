"""Run folders on S3 (moto's server): whole jobs, uploads cut short, the manifest, the lock.

Jobs run without listings, which some stores give late: what is there the manifests say.
"""

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from command import tenfold
from pyarrow import fs

from cluster import journal, lock
from cluster.errors import InputError
from cluster.lock import LOCK, Terms, find_holder, hold
from cluster.manifest import MANIFEST, Entry, append_entry, clear_entries, read_entries
from cluster.storage import Store
from pipelines.news.reading.sources import find_files
from pipelines.news.synthetic import SyntheticConfig, write_market

ROOT = Path(__file__).parents[1]
QUICK = Terms(renew_s=0.2, dead_s=2.0, settle_s=0.1)  # moto's clock has whole seconds
MARKET = SyntheticConfig(documents=800, tickers=10, sessions=60, words=2, noise=0.3)
FIT = ("--folds", 2, "--alphas", 5, "--alpha-ratio", 6, "--targets", "volume_change")
PANELS = ("--panels", 30, "--frames", 24)
DETECT = ("--panels", 200, "--frames", 24, "--epochs", 1, "--workers", 1, "--width", 4)
DETECT += ("--batch-size", 64, "--coreset-share", 0.1)
UPLOAD = """
import sys
from cluster.storage import Store
store, size = Store(sys.argv[1]), int(sys.argv[2])
print("begun", flush=True)
store.write_bytes("big", b"n" * size)
"""
HOLD = """
import sys
from cluster.lock import hold
from cluster.storage import Store
with hold(Store(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of an S3 server on loopback with one bucket."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("w") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink)
    deadline = time.monotonic() + 60
    try:
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        address = f"127.0.0.1:{port}"
        made = fs.S3FileSystem(endpoint_override=address, scheme="http", allow_bucket_creation=True)
        made.create_dir("bucket")
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def remote(server, request):
    return address(server, request.node.name.replace("[", "-").rstrip("]"))


def address(server, folder):
    return Store(f"s3://bucket/{folder}?endpoint_override={server}&scheme=http")


def python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def open_uploads(server):
    with urllib.request.urlopen(f"http://{server}/bucket?uploads", timeout=10) as answer:
        return re.findall(r"<Key>(.*?)</Key>", answer.read().decode())


def contents(store):
    """The checksum of each file that a job promises to write the same."""
    kinds = (".parquet", ".npz", ".safetensors", ".faiss")
    # Ray Train names checkpoints by the time.
    names = [n for n in store.list() if n.endswith(kinds) and not n.startswith("checkpoints/")]
    return {name: hashlib.sha256(store.read_bytes(name)).hexdigest() for name in names}


def done(*options):
    """Run a command on a store whose listings are so late that they show nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "list", lambda self, prefix="": [])
        outcome = tenfold(*options, "--json")
    assert outcome.code == 0, outcome.err
    return outcome


def test_a_failed_write_leaves_the_old_object_and_no_open_upload(remote, server):
    remote.write_bytes("x", b"old")
    with suppress(ZeroDivisionError), remote.open_output("x") as sink:
        sink.write(b"new" * 10_000_000)
        _ = 1 / 0
    assert remote.read_bytes("x") == b"old"
    assert remote.list() == ["x"]
    assert open_uploads(server) == []


def test_a_driver_killed_while_uploading_leaves_nothing_to_be_seen(remote, server):
    process = python(UPLOAD, remote.uri, 200_000_000)
    assert process.stdout.readline() == "begun\n"
    while not open_uploads(server):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(open_uploads(server)) == 1
    assert remote.list() == []
    assert remote.size("big") is None
    python(UPLOAD, remote.uri, 20_000_000).communicate()
    assert remote.size("big") == 20_000_000
    assert remote.checksum("big") == hashlib.blake2b(b"n" * 20_000_000, digest_size=16).hexdigest()


def test_manifest_grows_by_pieces_and_is_found_by_counting(remote, monkeypatch):
    monkeypatch.setattr(journal, "_PIECE_BYTES", 400)
    monkeypatch.setattr(journal, "_LOOK_AHEAD", 3)
    monkeypatch.setattr(Store, "list", None)  # a listing may lag: it is not asked
    keys = [f"{number:05d}" for number in range(25)]
    for number, key in enumerate(keys):
        if number % 7 == 6:
            journal._TAILS.clear()  # another process goes on
        append_entry(remote, Entry(key=key, fingerprint="f"))
    pieces = journal._pieces(remote, MANIFEST)
    assert len(pieces) > 4
    assert max(remote.sizes(pieces)) < 600
    assert [*read_entries(remote, "f")] == keys
    clear_entries(remote)
    assert read_entries(remote, "f") == {}
    append_entry(remote, Entry(key="again", fingerprint="f"))
    assert [*read_entries(remote, "f")] == ["again"]


def test_second_driver_is_refused_until_the_first_is_killed(remote):
    first = python(HOLD, remote.uri)
    assert first.stdout.readline() == "held\n"
    outcome = tenfold("fpcb", "generate", "--panels", 4, "--out", remote.uri)
    assert outcome.code == 2
    assert f"another driver works in this folder: got process {first.pid} on " in outcome.err
    first.send_signal(signal.SIGKILL)
    first.communicate()
    with hold(remote):
        assert find_holder(remote).pid == os.getpid()
    assert not remote.exists(LOCK)


def test_lease_of_another_machine_ends_without_renewal(remote, monkeypatch):
    monkeypatch.setattr(lock, "_MACHINE", "elsewhere")
    monkeypatch.setattr(lock, "_HELD", {})  # not this process's own, which lives on
    with hold(remote, terms=Terms(settle_s=0.1)):  # renewed every 10 s
        monkeypatch.setattr(lock, "_MACHINE", "here")
        monkeypatch.setattr(lock, "_HELD", {})
        with pytest.raises(InputError, match="another driver"), hold(remote, terms=QUICK):
            pass
        with hold(remote, wait=True, terms=QUICK):
            assert find_holder(remote).machine == "here"
    assert not remote.exists(LOCK)


@pytest.fixture(scope="module")
def fitted(cluster, server, tmp_path_factory):
    """The same fit on a local path and, from inputs on S3, on S3."""
    folder, there = tmp_path_factory.mktemp("news"), address(server, "fitted")
    write_market(MARKET, folder)
    for name in ("news", "prices"):
        there.write_bytes(f"in/{name}.parquet", (folder / f"{name}.parquet").read_bytes())
    files = [f"--{name}={folder}/{name}.parquet" for name in ("news", "prices")]
    done("news", "fit", *files, *FIT, "--out", folder / "run")
    files = [f"--{name}={(there / f'in/{name}.parquet').uri}" for name in ("news", "prices")]
    outcome = done("news", "fit", *files, *FIT, "--out", (there / "run").uri)
    return Store(folder / "run"), there / "run", files, outcome


@pytest.mark.long
def test_news_on_s3_gives_the_bytes_of_a_local_run(fitted):
    here, there, _, outcome = fitted
    local, remote = contents(here), contents(there)
    results = {name for name in local if not name.startswith("work/")}
    assert results >= {"dictionary.parquet", "coef_path.parquet", "model/columns.parquet"}
    results.discard("path.parquet")  # says how long each part took
    assert {name: remote[name] for name in results} == {name: local[name] for name in results}
    assert outcome.json["run"] == there.uri
    assert b"</html>" in there.read_bytes("report.html")
    assert not there.exists(LOCK)


@pytest.mark.long
def test_news_on_s3_repeats_no_finished_work(fitted):
    _, there, files, _ = fitted
    before = contents(there)
    again = done("news", "fit", *files, *FIT, "--out", there.uri)
    assert contents(there) == before
    assert re.search(r"solve path: .* from an earlier run", again.err), again.err


@pytest.mark.long
def test_glob_of_inputs_on_s3_finds_them(fitted):
    spec = fitted[2][0].removeprefix("--news=")
    assert find_files(spec.replace("news.parquet", "n*.parquet")) == [spec]
    assert len(find_files(spec.replace("/news.parquet", ""))) == 2
    with pytest.raises(InputError, match="no such file"):
        find_files(spec.replace("news.parquet", "gone.parquet"))


@pytest.mark.long
def test_credentials_are_in_no_record(fitted):
    _, there, _, outcome = fitted
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    assert all(secret not in there.read_bytes(name) for name in there.list())
    assert secret.decode() not in outcome.err + outcome.out


def test_panels_on_s3_have_the_bytes_of_local_ones(cluster, server, tmp_path):
    there = address(server, "boards/panels")
    for out in (str(tmp_path), there.uri):
        done("fpcb", "generate", *PANELS, "--scenario", "crack", "--out", out)
        done("fpcb", "features", out)
    data = contents(Store(tmp_path))
    assert {name.split("/")[0] for name in data} == {"panels", "features"}
    assert contents(there) == data
    (listed,) = done("runs", address(server, "boards").uri).json["runs"]
    assert (listed["run"], listed["state"]) == (there.uri, "finished")


@pytest.mark.long
def test_detectors_on_s3_have_the_bytes_of_local_ones(cluster, server, tmp_path):
    here, there = Store(tmp_path), address(server, "detectors")
    for out in (here, there):
        done("fpcb", "run", *DETECT, "--out", out.uri)
    local = contents(here)
    assert {"scores.parquet", "models/dream.safetensors", "pictures.npz"} <= {*local}
    assert contents(there) == local
    figures = [out.read_json("metrics.json")["test"] for out in (here, there)]
    assert figures[0] == figures[1]
