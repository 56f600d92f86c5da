"""The meter against what processes are known to use."""

import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from remote_work import Solver, compute_for

from cluster.machine import MACHINE
from cluster.meter import Meter
from cluster.run_record import read_record, recorded
from cluster.shards import map_shards
from cluster.storage import Store
from cluster.units import Unit, solve_units


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_stage_counts_wall_and_cpu_seconds_of_this_process(monkeypatch):
    monkeypatch.setattr(Meter, "_ours", lambda _: {psutil.Process(): False})
    with Meter() as meter:
        with meter.stage("busy"):
            burn(0.4)
        with meter.stage("idle"):
            time.sleep(0.4)
    busy, idle = meter.stages
    assert busy.name == "busy"
    assert busy.cpu_seconds >= 0.35
    assert idle.seconds >= 0.4
    assert idle.cpu_seconds < 0.3


def test_memory_of_a_stage_is_its_own(monkeypatch):
    # Other Rays on this machine come and go: their workers would count.
    monkeypatch.setattr(Meter, "_ours", lambda _: {psutil.Process(): False})
    with Meter() as meter:
        with meter.stage("large"):
            block = np.ones(1 << 26)  # 512 MiB
            time.sleep(0.7)
        del block
        with meter.stage("small"):
            time.sleep(0.7)
    large, small = meter.stages
    assert large.peak_gib - small.peak_gib > 0.4
    assert meter.peak_gib == large.peak_gib


def test_children_count_while_they_live_and_stay_counted_when_they_end():
    code = "import time; x = bytearray(400 << 20); t = time.process_time()\n"
    code += "while time.process_time() - t < 0.8: pass\ntime.sleep(1.0)"
    with Meter() as meter, meter.stage("child"):
        subprocess.run([sys.executable, "-c", code], check=True)
    assert meter.stages[0].cpu_seconds > 0.6
    assert meter.stages[0].peak_gib > 0.4


def test_pieces_of_other_machines_count_and_those_of_this_one_do_not_twice(
    cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(Meter, "_ours", lambda _: {})  # what Ray's workers here take is not seen
    units = [Unit(str(number), {"k": 0, "cpu_seconds": 0.2}) for number in range(3)]
    with Meter() as meter, recorded(Store(tmp_path), ["test"], meter=meter):
        for stage, machine in (("here", MACHINE), ("elsewhere", "another")):
            monkeypatch.setattr("cluster.meter.MACHINE", machine)
            with meter.stage(stage):
                map_shards(cluster, compute_for, [0.2] * 4, Store(tmp_path / f"{stage}-shards"),
                           fingerprint="f", label="shards")  # fmt: skip
                solve_units(cluster, Solver.remote, units, Store(tmp_path / f"{stage}-units"),
                            workers=1, fingerprint="f", label="units")  # fmt: skip
    here, elsewhere = meter.stages
    assert here.cpu_seconds == 0
    assert 1.4 <= elsewhere.cpu_seconds < 3
    assert read_record(Store(tmp_path)).cpu_seconds == elsewhere.cpu_seconds


def test_stage_is_recorded_when_it_fails():
    with pytest.raises(ZeroDivisionError), Meter() as meter, meter.stage("broken"):
        _ = 1 / 0
    assert [stage["name"] for stage in meter.table()] == ["broken"]
