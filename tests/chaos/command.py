"""``python tests/chaos``: both jobs under a seeded killer, and the table of what came of it."""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

from chaos.episode import Episode, as_row, undisturbed
from chaos.field import Field, SmallDisk
from chaos.jobs import make_jobs
from chaos.plan import SCENARIOS, SMALL_DISK, plan, shares
from chaos.rehearsal import brief, census, judge, left_behind, rehearse
from chaos.table import as_markdown, summarise

_SHOWN = 5  # programs whose memory grew most
_ROUNDS = 8  # faults that hit nobody are planned anew, at other moments


def main():
    """Read the options and play; exit code 1 when something was not survived."""
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(prog="python tests/chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="faults in all (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the plan (0)")
    parser.add_argument("--out", type=Path, default=Path("chaos-results"), help="folder")
    parser.add_argument("--only", choices=names, action="append", help="these scenarios alone")
    parser.add_argument("--jobs", help="these jobs alone, with commas between them")
    parser.add_argument("--rehearsal", type=float, metavar="MINUTES",
                        help="run for so long instead, and look for leaks")  # fmt: skip
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no raylet is left
    good = _rehearse(options) if options.rehearsal else _play(options)
    sys.exit(0 if good else 1)


def _play(options):
    results = _Results(options.out / "faults.jsonl")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-", dir="/tmp") as temporary:
        folder = Path(temporary)
        with Field() as field:
            samples = _play_all(options, results, field, folder)
        left = left_behind(field, folder)
    found = judge(samples)
    return _show(results, options, time.monotonic() - started,
                 found | {"leaks": [*left, *found["leaks"]]})  # fmt: skip


def _play_all(options, results, field, folder):
    """Play all episodes that have not been; return a census after each."""
    scenarios = [s for s in SCENARIOS if not options.only or s.name in options.only]
    if not SmallDisk.works(folder / "disk"):
        _say("no small disk can be mounted here (that needs root): that scenario is left out")
        scenarios = [s for s in scenarios if s.variants[0].where != SMALL_DISK]
    wanted = shares(options.kills, scenarios)
    jobs = make_jobs(folder / "data")
    baselines, samples = {}, []
    for round_number in range(_ROUNDS):
        missing = {name: count - results.struck(name) for name, count in wanted.items()}
        for planned in _planned(missing, options, scenarios, round_number):
            if results.has(round_number, planned.number):
                continue
            field.mend()
            if planned.job not in baselines:
                job = jobs[planned.job]
                baselines[planned.job] = undisturbed(field, job, folder, folder / "data")
                _say(f"undisturbed {planned.job}: {baselines[planned.job].seconds:.1f} s")
            outcomes = _one(planned, options, field, jobs, baselines, folder)
            results.keep(round_number, planned.number, outcomes)
            field.mend()
            samples.append(census(field))
            struck = sum(results.struck(name) for name in wanted)
            _say(f"-- {struck}/{options.kills} struck · still there: {brief(samples[-1])}")
    return samples


def _planned(missing, options, scenarios, round_number):
    if round_number == 0:  # as it was planned at first: a resumed call plays the same
        missing = shares(options.kills, scenarios)
    episodes = plan(missing, (options.seed, round_number), scenarios)
    jobs = options.jobs.split(",") if options.jobs else None
    return [episode for episode in episodes if jobs is None or episode.job in jobs]


def _one(planned, options, field, jobs, baselines, folder):
    one = Episode(
        field, planned, jobs[planned.job], baselines[planned.job], folder, folder / "data",
        options.seed, tell=_say,
    )  # fmt: skip
    if planned.where != SMALL_DISK:
        return one.play()
    with SmallDisk(folder / "disk") as one.disk:
        return one.play()


class _Results:
    """Outcomes as lines of JSON, so that a run that was stopped goes on where it was."""

    def __init__(self, path):
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = [json.loads(line) for line in lines]

    def has(self, round_number, number):
        return any(row["played"] == [round_number, number] for row in self.rows)

    def struck(self, name):
        return sum(row["scenario"] == name and not row["missed"] for row in self.rows)

    def keep(self, round_number, number, outcomes):
        rows = [{"played": [round_number, number], **as_row(outcome)} for outcome in outcomes]
        self.rows += rows
        with self.path.open("a") as sink:
            sink.writelines(json.dumps(row) + "\n" for row in rows)


def _show(results, options, seconds, found):
    rows = summarise(results.rows)
    lost = [r for r in results.rows if not r["missed"] and not r["survived"]]
    summary = {"seed": options.seed, "kills": options.kills, "seconds": round(seconds),
               "scenarios": rows, "lost": lost, **found}  # fmt: skip
    (options.out / "chaos.json").write_text(json.dumps(summary, indent=2) + "\n")
    (options.out / "chaos.md").write_text(as_markdown(rows))
    print(as_markdown(rows))
    for row in lost:
        print(f"LOST {row['scenario']} {row['job']}/{row['phase']}: {row['note']}")
    _show_leaks(found)
    return not lost and not found["leaks"] and rows[-1]["struck"] > 0


def _rehearse(options):
    found = rehearse(options.rehearsal, options.seed, _say)
    (options.out / "rehearsal.json").write_text(json.dumps(found, indent=2) + "\n")
    _show_leaks(found)
    return not found["leaks"]


def _show_leaks(found):
    for row in found["series"]:
        _say_thirds(row["name"], row)
    grown = sorted(found["programs_mib"], key=lambda row: row["first"] - row["last"])
    for row in grown[:_SHOWN]:
        _say_thirds(f"MiB of {row['name']}", row)
    for leak in found["leaks"]:
        print(f"LEAK {leak}")


def _say_thirds(what, row):
    print(f"{what:32} first third {row['first']:10.1f}  last third {row['last']:10.1f}")


def _say(text):
    print(text, flush=True)
