import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from driver import HEED_CTRL_C, wait_until
from raylets import Raylets
from remote_work import (
    Task,
    always_raise,
    name_a_missing_file,
    refuse,
    report_threads,
    write_rows,
    write_slowly_once,
)

from cluster.errors import InputError, ShardsFailed
from cluster.manifest import MANIFEST
from cluster.nodes import Cluster
from cluster.shards import map_shards
from cluster.storage import Store

COUNT = 8
SLOW_DRIVER = str(Path(__file__).with_name("slow_driver.py"))


def run(cluster, store, tasks=None, function=write_rows, fingerprint="f", **options):
    tasks = [Task(number) for number in range(COUNT)] if tasks is None else tasks
    return map_shards(
        cluster, function, tasks, store, fingerprint=fingerprint, label="test", **options
    )


def contents(store):
    return {name: store.checksum(name) for name in store.list("rows-")}


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    run(cluster, store)
    return contents(store)


def test_manifest_has_rows_files_and_checksums_in_order(cluster, store, undisturbed):
    manifest = run(cluster, store)
    assert manifest.rows == sum(100 + number for number in range(COUNT))
    assert manifest.files == [f"rows-{number:03d}.bin" for number in range(COUNT)]
    assert [entry.key for entry in manifest.entries] == [f"{k:05d}" for k in range(COUNT)]
    checks = {name: c for entry in manifest.entries for name, (_, c) in entry.files.items()}
    assert checks == contents(store) == undisturbed


@pytest.mark.parametrize("how", ["killed", "raised"])
def test_result_is_the_same_when_attempts_fail(cluster, store, tmp_path, undisturbed, how, capsys):
    tasks = [
        Task(number, tmp_path / f"flag-{number}" if number in (1, 6) else None, how)
        for number in range(COUNT)
    ]
    manifest = run(cluster, store, tasks)
    assert contents(store) == undisturbed
    # A killed process takes down whatever else it was given, which is then done again as well.
    again = {entry.key for entry in manifest.entries if entry.attempts > 1}
    assert again >= {"00001", "00006"}
    assert "00001 again after" in capsys.readouterr().err


@pytest.mark.usefixtures("stopped_workers_end")
def test_stalled_shard_is_done_elsewhere_once(cluster, store, tmp_path, undisturbed):
    tasks = [Task(number) for number in range(COUNT)]
    tasks[5] = Task(5, tmp_path / "flag", "stalled")
    manifest = run(cluster, store, tasks)
    assert contents(store) == undisturbed
    lines = store.read_bytes(MANIFEST).splitlines()
    assert len(lines) == len(manifest.entries) == COUNT
    # What the process that is stopped, and cannot be ended, left half-written is gone as well.
    assert not [*Path(store.path).rglob(".partial-*")]


@pytest.mark.long
def test_machine_that_stops_in_the_middle_of_a_file_leaves_none(store, tmp_path, undisturbed):
    flag = tmp_path / "stopped"
    with Raylets() as raylets:
        raylets.head(0)
        nodes = [raylets.join(f"n{number}", 1) for number in range(2)]
        driver = [sys.executable, SLOW_DRIVER, store.path, str(COUNT), str(flag)]
        done = subprocess.run(
            driver, env=raylets.environment(), capture_output=True, text=True, timeout=120
        )
        stopped = [node.raylet.status() == psutil.STATUS_STOPPED for node in nodes]
    assert done.returncode == 0, done.stderr
    assert flag.exists()
    assert sorted(stopped) == [False, True]
    assert contents(store) == undisturbed
    assert not [*Path(store.path).rglob(".partial-*")]


def test_slow_shard_is_done_elsewhere_and_its_process_ended(cluster, store, tmp_path):
    tasks = [Task(number) for number in range(COUNT)]
    tasks[5] = Task(5, tmp_path / "flag", seconds=60)
    manifest = run(cluster, store, tasks, function=write_slowly_once)
    assert manifest.entries[5].seconds < 60
    # Only interrupted, it could be within an import, and no shard after it could do that import.
    pid = int(tasks[5].flag.read_text())
    wait_until(lambda: not psutil.pid_exists(pid), "the end of the slow process")


def test_shard_after_one_that_raises_is_not_blamed(cluster, store, tmp_path):
    tasks = [Task(number) for number in range(100)]
    tasks[40] = Task(40, tmp_path / "flag", "raised")
    manifest = run(cluster, store, tasks)
    assert [entry.key for entry in manifest.entries if entry.attempts > 1] == ["00040"]


def test_finished_shards_are_skipped_on_a_second_run(cluster, store, undisturbed):
    first = run(cluster, store)
    second = run(cluster, store)
    assert (first.reused, second.reused) == (0, COUNT)
    assert second.entries == first.entries


def test_only_damaged_shards_are_done_again(cluster, store, undisturbed):
    run(cluster, store)
    store.delete("rows-002.bin")
    store.write_bytes("rows-003.bin", b"short")
    assert run(cluster, store).reused == COUNT - 2
    store.write_bytes("rows-004.bin", bytes(104))  # the right size: seen by checksum alone
    assert run(cluster, store).reused == COUNT
    assert run(cluster, store, verify=True).reused == COUNT - 1
    assert contents(store) == undisturbed


def test_torn_manifest_line_costs_one_shard(cluster, store, undisturbed):
    run(cluster, store)
    store.write_bytes(MANIFEST, store.read_bytes(MANIFEST)[:-20])
    assert run(cluster, store).reused == COUNT - 1
    assert contents(store) == undisturbed


def test_nothing_is_reused_when_fingerprint_or_cut_changes(cluster, store):
    run(cluster, store)
    assert run(cluster, store, fingerprint="other").reused == 0
    assert run(cluster, store, [Task(number) for number in range(COUNT - 1)]).reused == 0


def test_empty_map_is_an_empty_manifest(cluster, store):
    assert run(cluster, store, []).entries == ()


def test_input_error_comes_back_as_it_was_raised_without_retries(cluster, store):
    with pytest.raises(InputError) as caught:
        run(cluster, store, [Task(0)], function=refuse)
    assert type(caught.value) is InputError
    assert caught.value.fix == "Fix the row."
    assert sum(name.startswith("call-") for name in store.list()) == 1


def test_shard_that_always_fails_is_named_and_the_others_are_kept(cluster, store):
    with pytest.raises(ShardsFailed, match="00002") as caught:
        run(cluster, store, function=always_raise, max_retries=1)
    assert "ValueError: this shard cannot be done" in caught.value.failed["00002"]
    assert "remote_work.py" in caught.value.failed["00002"]
    assert run(cluster, store).reused == COUNT - 1


def test_shard_that_names_a_missing_file_fails(cluster, store):
    with pytest.raises(ShardsFailed, match="never-written"):
        run(cluster, store, [Task(0)], name_a_missing_file, max_retries=0)


def test_work_that_fits_no_machine_is_refused(cluster, store):
    with pytest.raises(InputError, match="CPU 64"):
        run(cluster, store, num_cpus=64)


@pytest.mark.parametrize("num_cpus", [2, 1])
def test_blas_threads_follow_the_cores_of_a_shard(cluster, store, num_cpus):
    manifest = run(cluster, store, [Task(0)], report_threads, num_cpus=num_cpus)
    assert manifest.summaries[0]["threads"] == num_cpus


def test_store_that_other_machines_cannot_see_is_refused(cluster, tmp_path):
    class TwoMachines(Cluster):
        @property
        def nodes(self):
            return [*super().nodes] * 2

    # A path through an open file descriptor means something in this process only.
    opened = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        two = TwoMachines(cluster.embedded, cluster.address, cluster.dashboard_url)
        two.check_shared(Store(tmp_path))
        with pytest.raises(InputError, match="NFS, or s3"):
            run(two, Store(f"/proc/self/fd/{opened}"))
    finally:
        os.close(opened)


def test_machine_that_is_lost_while_it_is_asked_ends_no_run(cluster, store, undisturbed, capsys):
    class OneHasGone(Cluster):
        @property
        def nodes(self):
            (here,) = super().nodes
            return [here, replace(here, node_id="ab" * (len(here.node_id) // 2), host="lost")]

    two = OneHasGone(cluster.embedded, cluster.address, cluster.dashboard_url)
    two.check_shared(store)
    assert "no answer from lost" in capsys.readouterr().err
    assert store.uri not in two.shared_stores
    assert store.list() == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_finished_shards_are_skipped_when_driver_restarts(cluster, store, join_environment, how):
    count = 30
    command = [*HEED_CTRL_C, sys.executable, SLOW_DRIVER, store.path, str(count)]
    driver = subprocess.Popen(
        command, env=join_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    manifest = Path(store.path) / MANIFEST
    deadline = time.monotonic() + 60
    while not manifest.exists() or len(manifest.read_bytes().splitlines()) < 3:
        assert driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(how)
    out, err = driver.communicate(timeout=30)
    assert driver.returncode != 0
    assert out == ""
    if how is signal.SIGINT:
        assert "stopped by KeyboardInterrupt" in err

    tasks = [Task(number, seconds=0.0) for number in range(count)]
    again = run(cluster, store, tasks, fingerprint="slow")
    assert 3 <= again.reused < count
    lines = [json.loads(line)["key"] for line in manifest.read_text().splitlines()]
    assert sorted(lines) == [f"{number:05d}" for number in range(count)]
    assert len(contents(store)) == count
