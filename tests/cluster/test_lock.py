import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pytest
from command import tenfold

from cluster import lock
from cluster.errors import InputError
from cluster.lock import LOCK, Terms, check_held, find_holder, hold
from cluster.manifest import Entry, append_entry, read_entries
from cluster.storage import Store

ROOT = Path(__file__).resolve().parents[2]
QUICK = Terms(renew_s=0.1, dead_s=1.0, settle_s=0.2)
DRIVER = """
import contextlib, sys
from cluster import lock
from cluster.errors import InputError
from cluster.manifest import Entry, append_entry
from cluster.storage import Store
out, machine, flock = sys.argv[1:]
lock._MACHINE = machine or lock._MACHINE
if not flock:
    lock._exclusive = lambda folder: contextlib.nullcontext(False)
try:
    print("ready", flush=True)
    sys.stdin.readline()
    with lock.hold(Store(out), terms=lock.Terms(renew_s=0.1, dead_s=1.0, settle_s=0.2)):
        print("held", flush=True)
        for line in sys.stdin:
            append_entry(Store(out) / "work", Entry(key=line.strip(), fingerprint="f"))
            print("appended", flush=True)
except InputError as error:
    print("refused", error, flush=True)
"""


class Driver:
    """A process that holds a folder, and adds an entry to a manifest in it when told."""

    def __init__(self, out, machine="", *, flock=True):
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(out), machine, "yes" if flock else ""],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def tell(self, word=""):
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def driver(tmp_path):
    """Start drivers in the folder of the test; end them with it."""
    begun = []

    def begin(*arguments, **options):
        begun.append(Driver(tmp_path / "run", *arguments, **options))
        return begun[-1]

    yield begin
    for one in begun:
        one.end()


@pytest.fixture
def run(tmp_path):
    return Store(tmp_path / "run")


def test_second_driver_is_refused_while_the_first_runs(driver, run):
    first = driver()
    assert first.tell() == "held"
    generate = ("fpcb", "generate", "--panels", "4", "--out", run.uri)
    outcome = tenfold(*generate)
    holder = find_holder(run)
    assert outcome.code == 2
    assert f"got process {first.process.pid} on {holder.host} since {holder.since}." in outcome.err
    assert "--wait" in outcome.err
    assert run.list() == [LOCK]
    assert first.tell("00000") == "appended"


def test_lock_outlives_a_disk_that_is_full_for_a_while(small_disk):
    run = Store(small_disk / "run")
    with hold(run, terms=QUICK):
        held = lock._HELD[run.uri]
        filler = small_disk / "other people's files"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as sink:
            while sink.write(bytes(1 << 12)):
                pass
        with pytest.raises(InputError, match="no room left"):
            run.write_bytes("more", bytes(1 << 12))
        time.sleep(3 * QUICK.renew_s)
        filler.unlink()
        full_until = held.confirmed
        deadline = time.monotonic() + 30
        while held.confirmed == full_until:
            assert time.monotonic() < deadline, "nobody renews the lock"
            time.sleep(0.01)
        held.check()
    assert run.list() == []


def test_killed_driver_gives_the_folder_back_at_once(driver, run):
    first = driver()
    assert first.tell() == "held"
    first.process.send_signal(signal.SIGKILL)
    while find_holder(run) is not None:
        time.sleep(0.01)
    started = time.monotonic()
    with hold(run):
        assert find_holder(run).pid == os.getpid()
    assert time.monotonic() - started < Terms().renew_s  # no lease had to run out
    assert run.list() == []


def test_what_a_killed_driver_left_half_written_goes_with_its_lock(run):
    half, probe = ".partial-0a1b2c3d-run.json", ".partial-0a1b2c3d-.clock-89abcdef"
    Path(run.path).mkdir()
    for name in (half, probe):  # the probe is of one who asks who holds the folder, perhaps now
        Path(run.path, name).write_text("{")
    with hold(run):
        assert not Path(run.path, half).exists()
        assert Path(run.path, probe).exists()


def test_process_of_the_same_number_is_not_the_driver(run):
    with hold(run):
        held = run.read_json(LOCK)
    run.write_json(LOCK, held | {"started": held["started"] - 1})
    assert find_holder(run) is None
    run.write_json(LOCK, held | {"machine": "another boot of this host"})
    assert find_holder(run).host == held["host"]


@pytest.mark.parametrize("flock", [True, False])
def test_stopped_driver_of_another_machine_is_replaced_and_finds_out(driver, run, flock):
    first = driver("elsewhere", flock=flock)
    assert first.tell() == "held"
    assert first.tell("00000") == "appended"
    with pytest.raises(InputError, match="another driver works in this folder"), hold(run):
        pass
    first.process.send_signal(signal.SIGSTOP)
    with hold(run, wait=True, terms=QUICK):
        append_entry(run / "work", Entry(key="00001", fingerprint="f"))
        first.process.send_signal(signal.SIGCONT)
        answer = first.tell("00002")
        assert answer.startswith(f"refused {run}: another driver took over this folder")
        assert f"process {os.getpid()}" in answer
        first.process.wait()
        check_held(run / "work")  # still ours: the other has not taken our lock along
        assert find_holder(run).pid == os.getpid()
    assert set(read_entries(run / "work", "f")) == {"00000", "00001"}
    assert not run.exists(LOCK)


def test_stopped_driver_of_this_machine_is_not_replaced(driver, run):
    first = driver()
    assert first.tell() == "held"
    first.process.send_signal(signal.SIGSTOP)
    time.sleep(1.5 * QUICK.dead_s)
    with pytest.raises(InputError, match="another driver"), hold(run, terms=QUICK):
        pass
    first.process.send_signal(signal.SIGCONT)
    assert first.tell("00000") == "appended"


@pytest.mark.parametrize("flock", [True, False])
def test_one_of_several_claims_wins(driver, flock):
    drivers = [driver(f"machine {n}", flock=flock) for n in range(3)]
    for one in drivers:
        one.process.stdin.write("\n")
        one.process.stdin.flush()
    answers = sorted(one.process.stdout.readline().split()[0] for one in drivers)
    assert answers == ["held", "refused", "refused"]


def test_stages_of_one_process_share_the_lock(run):
    with hold(run), hold(run / "data"), hold(run):
        assert run.list() == [LOCK]
    assert run.list() == []
    with hold(run / "a"), hold(run / "ab"):
        assert run.list() == [f"a/{LOCK}", f"ab/{LOCK}"]


def test_lock_is_given_back_after_an_error(run):
    with pytest.raises(ZeroDivisionError), hold(run):
        _ = 1 / 0
    assert run.list() == []


def test_lock_that_was_removed_stops_the_driver(run):
    with hold(run, terms=QUICK):
        run.delete(LOCK)
        time.sleep(5 * QUICK.renew_s)
        with pytest.raises(InputError, match="took over"):
            append_entry(run, Entry(key="00000", fingerprint="f"))


def test_readers_of_data_pass_over_the_lock(run):
    run.write_table("part/00000.parquet", pa.table({"x": [1, 2]}))
    with hold(run):
        assert pa.dataset.dataset(run.path).count_rows() == 2


def test_damaged_lock_holds_nobody(run):
    run.write_bytes(LOCK, b"torn {")
    with hold(run):
        assert json.loads(run.read_bytes(LOCK))["pid"] == os.getpid()


def test_age_of_a_lease_is_told_by_the_clock_of_the_store(run, monkeypatch):
    monkeypatch.setattr(lock, "_MACHINE", "elsewhere")
    with hold(run):
        monkeypatch.setattr(lock, "_MACHINE", "here")
        monkeypatch.setattr(time, "time", lambda: 0.0)  # this host is far behind
        assert find_holder(run) is not None
        long_ago = Path(run.path, LOCK).stat().st_mtime - 2 * Terms().dead_s
        os.utime(Path(run.path, LOCK), (long_ago, long_ago))
        assert find_holder(run) is None
