"""The two jobs at small scale: their commands, their phases, and what must come out the same."""

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.news.synthetic import SyntheticConfig, write_market

MANIFEST = "_manifest.jsonl"
_EPOCHS = "history.json"
_TIMES = ("seconds",)  # columns that tell how long something took


@dataclass(frozen=True)
class Phase:
    """One stage: where it counts what is finished, and what its workers call themselves."""

    name: str
    manifests: str
    title: str


@dataclass(frozen=True)
class Job:
    """Commands that a user would type one after the other; each resumes when typed again.

    Attributes
    ----------
    steps : tuple of tuple of str
        Arguments of ``tenfold``; ``{out}`` and ``{data}`` are filled in.
    phases : tuple of Phase
    results : tuple of str
        Patterns of the files that must be the same to the byte.
    tables : tuple of str
        Patterns of tables that must be the same but for columns that hold times.
    last : str
        The file whose presence says that the last step has done its work.
    """

    name: str
    steps: tuple[tuple[str, ...], ...]
    phases: tuple[Phase, ...]
    results: tuple[str, ...]
    tables: tuple[str, ...]
    last: str

    def phase(self, name):
        """Return the phase called so."""
        return next(phase for phase in self.phases if phase.name == name)

    def finished(self, out, phase=None):
        """Return the pieces finished so far, as (file, key), of one phase or all."""
        patterns = [p.manifests for p in self.phases] if phase is None else [phase.manifests]
        return {piece for pattern in patterns for path in paths(out, pattern)
                for piece in _pieces(path)}  # fmt: skip

    def outputs(self, out):
        """Return the hash of all that must not change, by name."""
        found = {}
        for pattern in self.results:
            for path in sorted(out.glob(pattern)):
                found[str(path.relative_to(out))] = _hash(path.read_bytes())
        for pattern in self.tables:
            for path in sorted(out.glob(pattern)):
                found[f"{path.relative_to(out)} without times"] = _hash(_timeless(path))
        return found


def make_jobs(data):
    """Make the market below ``data``, and return the jobs by name."""
    market = SyntheticConfig(documents=6_000, tickers=30, sessions=100, words=4)
    if not (data / "prices.parquet").exists():
        write_market(market, data)
    return {job.name: job for job in (_news(), _panels(), _detectors())}


def _news():
    return Job(
        "news",
        (
            (
                "news", "fit", "--news", "{data}/news.parquet", "--prices", "{data}/prices.parquet",
                "--out", "{out}", "--targets", "excess_return,log_range", "--folds", "3",
                "--alphas", "30", "--stretch", "2", "--alpha-ratio", "12", "--shard-rows", "400",
            ),
            ("news", "score", "{out}", "--news", "{data}/news.parquet", "--out", "{out}/scored"),
        ),
        (
            Phase("count", f"work/ngrams-*/counted/{MANIFEST}", "ray::count n-grams shard"),
            Phase("merge", f"work/ngrams-*/merged/{MANIFEST}", "ray::merge vocabulary shard"),
            Phase("assemble", f"work/ngrams-*/rows/{MANIFEST}", "ray::assemble matrix shard"),
            Phase("path", f"work/path/{MANIFEST}", "ray::LassoWorker.solve"),
        ),
        ("dictionary.*", "coef_path.parquet", "daily_ic.parquet", "model/*", "scored/*.parquet"),
        ("path.parquet",),
        "scored/scores.parquet",
    )  # fmt: skip


def _panels():
    return Job(
        "panels",
        (
            ("fpcb", "generate", "--panels", "900", "--frames", "60", "--shard-size", "25",
             "--seed", "3", "--out", "{out}"),
            ("fpcb", "features", "{out}"),
        ),
        (
            Phase("generate", f"panels/{MANIFEST}", "ray::generate panels shard"),
            Phase("extract", f"features/{MANIFEST}", "ray::extract features shard"),
        ),
        ("panels/split=*/**/*.parquet", "features/split=*/**/*.parquet", "data.json"),
        (),
        "no such file",  # data.json is there from the first step on
    )  # fmt: skip


def _detectors():
    return Job(
        "detectors",
        (
            (
                "fpcb", "run", "--panels", "300", "--frames", "24", "--seed", "8", "--width", "4",
                "--epochs", "5", "--batch-size", "64", "--lanes", "2", "--patience", "9",
                "--workers", "2", "--out", "{out}",
            ),
            ("fpcb", "score", "{out}", "{out}/data", "--out", "{out}/scored"),
        ),
        (
            Phase("features", f"data/features/{MANIFEST}", "ray::generate and extract shard"),
            Phase("choose", f"work/coreset/{MANIFEST}", "ray::choose patches shard"),
            Phase("train", f"checkpoints/*/{_EPOCHS}", "ray::RayTrainWorker"),
            Phase("score", f"**/work/scores/*/{MANIFEST}", "ray::score"),
        ),
        (
            "data/features/split=*/**/*.parquet", "scores.parquet", "scored/scores.parquet",
            "models/dream.safetensors", "models/patchcore*", "models/decision.json",
        ),
        (),
        "scored/scores.parquet",
    )  # fmt: skip


def paths(out, pattern):
    """Return what matches now; a folder that goes while it is looked into makes us look again."""
    while True:
        with suppress(FileNotFoundError):
            return [*out.glob(pattern)]


def _pieces(path):
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return
    if path.name == _EPOCHS:
        try:
            yield from ((path, str(entry["epoch"])) for entry in json.loads(text))
        except ValueError:
            return
        return
    for line in text.splitlines():
        try:
            yield path, json.loads(line)["key"]
        except ValueError:
            continue


def _timeless(path):
    table = pq.read_table(path, partitioning=None)
    kept = table.drop_columns([name for name in _TIMES if name in table.column_names])
    return repr(kept.to_pydict()).encode()


_hash = partial(lambda data: hashlib.blake2b(data, digest_size=16).hexdigest())


def differences(found, wanted):
    """Return the names of the outputs that are not as they should be."""
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))


def files_left(out):
    """Return what writers that died have left in a run folder."""
    return sorted(str(path) for path in Path(out).rglob(".partial-*"))
