"""A night in short: both jobs again and again under kills, and a census after each run.

What lives on from run to run must not grow: memory, file handles, processes, the object store,
temporary files. When all is closed, nothing may be left.
"""

import random
import tempfile
import time
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
from chaos.episode import Episode, undisturbed
from chaos.field import Field
from chaos.jobs import make_jobs
from chaos.plan import SCENARIOS, plan
from chaos.processes import AGENTS, in_sessions, wait_until, zombies

_KILLED = ("task", "actor", "worker", "raylet", "driver")
_SETTLE_S = 20.0
_JUDGED_FROM = 9  # runs: the first ones warm the cluster up
_RAY_TRAINS_OWN = "ray::_AutoscalingCoordinatorActor"  # one a cluster, for as long as that lives
# How much more the last third may have than the first: a share of it, and a little of each.
_GROWTH = 0.10
_SLACK = {"memory_mib": 40.0, "files": 20.0, "processes": 2.0, "store_mib": 2.0}


def rehearse(minutes, seed, tell):
    """Run for so many minutes; return samples, their thirds, and what leaks."""
    end = time.monotonic() + 60 * minutes
    samples, lost, kills, runs = [], [], 0, 0
    with tempfile.TemporaryDirectory(prefix="chaos-", dir="/tmp") as temporary:
        folder = Path(temporary)
        with Field() as field:
            jobs = make_jobs(folder / "data")
            known = {n: undisturbed(field, job, folder, folder / "data") for n, job in jobs.items()}
            for planned in _endless(seed):
                if time.monotonic() > end:
                    break
                field.mend()
                one = Episode(field, planned, jobs[planned.job], known[planned.job], folder,
                              folder / "data", seed, tell=tell)  # fmt: skip
                outcomes = one.play()
                runs += 1
                kills += sum(not outcome.missed for outcome in outcomes)
                lost += [o.note for o in outcomes if not o.missed and not o.survived]
                field.mend()
                samples.append(census(field) | {"job": planned.job})
                tell(f"-- run {runs}, {kills} kills: {brief(samples[-1])}")
        left = left_behind(field, folder)
    found = judge(samples)
    return found | {"minutes": minutes, "runs": runs, "kills": kills,
                    "leaks": [*lost, *left, *found["leaks"]], "samples": samples}  # fmt: skip


def _endless(seed):
    """Yield episodes of all that may be killed on a cluster, round after round."""
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in _KILLED]
    rng = random.Random(f"rehearsal {seed}")
    while True:
        yield from plan(dict.fromkeys(_KILLED, 6), rng.random(), scenarios)


def census(field):
    """Count what lives on after a run, when workers have had time to end.

    Memory is PSS: a page that several processes share counts once in their sum.
    """
    sessions = field.sessions
    wait_until(lambda: not _actors(sessions), _SETTLE_S)
    seen = in_sessions(sessions)
    return {
        "memory_mib": round(sum(_of(one, _pss) for one in seen) / (1 << 20), 1),
        "files": sum(_of(one, psutil.Process.num_fds) for one in seen),
        "processes": len(seen),
        "actors": len(_actors(sessions)),
        "store_mib": round(field.stored_mib(), 1),
        "zombies": len(zombies(sessions)),
        "programs_mib": _by_program(seen),
    }


def brief(sample):
    """Return a census without the list of programs, for a line of text."""
    return {name: count for name, count in sample.items() if name != "programs_mib"}


def judge(samples):
    """Return the thirds of each series of censuses, those of each program, and what leaks."""
    enough = len(samples) >= _JUDGED_FROM
    series = [compare(name, [s[name] for s in samples]) for name in _SLACK] if enough else []
    names = sorted({name for s in samples for name in s["programs_mib"]}) if enough else []
    programs = [_thirds(name, [s["programs_mib"].get(name, 0.0) for s in samples])
                for name in names]  # fmt: skip
    leaks = [f"{row['name']} grew from {row['first']} to {row['last']}" for row in series
             if row["grows"]]  # fmt: skip
    leaks += [f"{s['zombies']} zombies after a run" for s in samples if s["zombies"]]
    leaks += [f"{s['actors']} actors after a run" for s in samples if s["actors"]]
    return {"series": series, "programs_mib": programs, "leaks": leaks}


def compare(name, values):
    """Hold the middle of the last third against that of the first."""
    row = _thirds(name, values)
    return row | {"grows": row["last"] > row["first"] * (1 + _GROWTH) + _SLACK[name]}


def left_behind(field, folder):
    """Say what is left when the field is closed, of it and in the run folders."""
    sessions, ray_folder = field.sessions, field.raylets.folder
    found = [f"left running: {one.title}" for one in in_sessions(sessions)]
    found += [f"zombie: {process.pid}" for process in zombies(sessions)]
    found += [f"left behind: {ray_folder}"] if ray_folder.exists() else []
    found += [f"left behind: {path}" for path in folder.rglob(".partial-*")]
    return found


def _thirds(name, values):
    third = max(1, len(values) // 3)
    first, last = (sorted(part)[len(part) // 2] for part in (values[:third], values[-third:]))
    return {"name": name, "first": first, "last": last}


def _by_program(seen):
    """Return the memory of all processes of a program together, in MiB."""
    found = Counter()
    for one in seen:
        found[_of(one, _program) or one.name] += _of(one, _pss) / (1 << 20)
    return {name: round(mib, 1) for name, mib in found.items()}


def _program(process):
    """Name the script or module that a Python process runs, else what it calls itself."""
    first, *rest = process.cmdline() or [""]  # a zombie has none
    scripts = [word for word in rest if word.endswith(".py")]
    modules = [word for flag, word in pairwise(rest) if flag == "-m"]
    return Path([*modules, *scripts, first][0]).name


def _actors(sessions):
    idle = ("ray::IDLE", _RAY_TRAINS_OWN, *AGENTS)
    return [one for one in in_sessions(sessions)
            if one.title.startswith("ray::") and not one.title.startswith(idle)]  # fmt: skip


def _pss(process):
    return process.memory_full_info().pss


def _of(seen, measure):
    with suppress(psutil.Error):
        return measure(seen.process)
    return 0
