"""What will be killed, when: decided by the seed alone, before anything runs."""

import random
from dataclasses import dataclass, replace

CLUSTER, EMBEDDED, SMALL_DISK = "cluster", "embedded", "small disk"


@dataclass(frozen=True)
class Variant:
    """One way to disturb.

    Attributes
    ----------
    victim : str
        What `faults.Field.strike` is asked for.
    where : str
        CLUSTER: head and two nodes that live on from run to run. EMBEDDED: a Ray of the driver's
        own. SMALL_DISK: the cluster, with the run folder on a disk that can be filled.
    phases : dict of job to tuple of str
        The stages in which it may strike.
    per_run : int
        Faults of this variant in one run of a job, at most.
    """

    victim: str
    where: str
    phases: dict[str, tuple[str, ...]]
    per_run: int = 1


@dataclass(frozen=True)
class Scenario:
    """A kind of fault, and how many of 200 it gets."""

    name: str
    share: int
    variants: tuple[Variant, ...]


SHARDS = {
    "news": ("count", "assemble"),
    "panels": ("generate", "extract"),
    "detectors": ("features", "score"),
}
ANY = {
    "news": ("count", "assemble", "path"),
    "panels": ("generate", "extract"),
    "detectors": ("features", "train", "score"),
}
MATRIX = {"news": ("path",), "detectors": ("score",)}
KEPT = {**ANY, "detectors": ("features", "score")}
READ = {"news": ("assemble", "path"), "panels": ("extract",), "detectors": ("train", "score")}

SCENARIOS = (
    Scenario("task", 50, (Variant("task", CLUSTER, SHARDS, 5),)),
    Scenario(
        "actor",
        35,
        (
            Variant("actor", CLUSTER, {"news": ("path",)}, 8),
            Variant("actor", CLUSTER, {"detectors": ("score",)}, 4),
        ),
    ),
    Scenario(
        "worker",
        25,
        (
            Variant("trainer", CLUSTER, {"detectors": ("train",)}, 2),
            Variant("all of a node", CLUSTER, ANY, 6),
        ),
    ),
    Scenario("raylet", 20, (Variant("raylet", CLUSTER, ANY, 4),)),
    Scenario("driver", 25, (Variant("driver", CLUSTER, ANY, 6),)),
    Scenario("full disk", 8, (Variant("disk", SMALL_DISK, ANY, 3),)),
    Scenario(
        "stalled node",
        15,
        (
            Variant("worker for a while", CLUSTER, ANY, 3),
            Variant("worker for good", CLUSTER, {"news": ("count", "path")}),
            Variant("node for a while", CLUSTER, ANY, 2),
            Variant("node for good", CLUSTER, ANY),
        ),
    ),
    Scenario(
        "corrupted shard",
        14,
        (
            Variant("flipped bit", CLUSTER, KEPT, 3),
            Variant("truncated file", CLUSTER, KEPT, 3),
            Variant("torn manifest", CLUSTER, KEPT, 3),
            Variant("flipped bit of its input", CLUSTER, READ),
        ),
    ),
    Scenario(
        "lost object store",
        8,
        (
            Variant("store of a node", CLUSTER, MATRIX),
            Variant("store of the driver", EMBEDDED, KEPT),
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that will go wrong: when ``moment`` of the pieces of ``phase`` are finished."""

    scenario: str
    variant: Variant
    job: str
    phase: str
    moment: float

    def after(self, pieces):
        """Return how many of the phase's ``pieces`` are finished when it strikes."""
        return int(self.moment * pieces)


@dataclass(frozen=True)
class Episode:
    """One run of a job, with all that goes wrong in it, in order."""

    number: int
    job: str
    where: str
    faults: tuple[Fault, ...]


def shares(kills, scenarios=SCENARIOS):
    """Return how many of ``kills`` each scenario gets, by largest remainder."""
    total = sum(scenario.share for scenario in scenarios)
    exact = {scenario.name: kills * scenario.share / total for scenario in scenarios}
    counts = {name: int(count) for name, count in exact.items()}
    rest = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in rest[: kills - sum(counts.values())]:
        counts[name] += 1
    return counts


def plan(counts, seed, scenarios=SCENARIOS):
    """Return the episodes that hold ``counts[scenario]`` faults of each scenario.

    Variants, and the jobs of a variant, take turns; phase and moment are drawn.
    """
    rng = random.Random(f"{seed}")
    episodes = []
    for scenario in scenarios:
        runs = _runs(scenario, counts.get(scenario.name, 0), rng.randrange(6))
        for variant, job, faults in runs:
            episodes.append(_episode(scenario.name, variant, job, faults, rng))
    rng.shuffle(episodes)  # what one scenario leaves behind meets the others
    return [replace(episode, number=number) for number, episode in enumerate(episodes)]


def _runs(scenario, count, turn):
    """Deal ``count`` faults out to runs: yields (variant, job, number of faults)."""
    while count > 0:
        variant = scenario.variants[turn % len(scenario.variants)]
        jobs = sorted(variant.phases)
        job = jobs[turn // len(scenario.variants) % len(jobs)]
        faults = min(variant.per_run, count)
        yield variant, job, faults
        count, turn = count - faults, turn + 1


def _episode(name, variant, job, count, rng):
    phases = variant.phases[job]
    places = sorted((rng.randrange(len(phases)), rng.uniform(0.05, 0.85)) for _ in range(count))
    faults = tuple(
        Fault(scenario=name, variant=variant, job=job, phase=phases[at], moment=round(moment, 3))
        for at, moment in places
    )
    return Episode(0, job, variant.where, faults)
