"""A cluster made of numbers: drives `cluster.schedule` through hours in seconds.

Nodes differ in speed, slow down midway, hang, die and join; the scheduler sees only what a driver
would: answers with the worker's own seconds, and nodes that are found dead some time after.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd

from cluster.pieces import Piece
from cluster.schedule import Scheduler
from pipelines.news.fitting.path import ALL_ROWS, PathConfig, plan_units

_TICK_S = 0.5
_LATENCY_S = 0.01  # from an answer to the next call's start
KINDS = {"cpu": (1.0, 4.0), "mlx": (4.0, 10.0), "cuda": (10.0, 20.0)}


@dataclass
class Node:
    """A machine with one worker: its speed from each moment on, until it is gone."""

    name: str
    kind: str
    speeds: list[tuple[float, float]]  # (from when, speed)
    joins: float = 0.0
    dies: float = math.inf
    found_dead: float = math.inf

    def ends(self, start: float, work: float) -> float:
        """Return when ``work`` begun at ``start`` is done."""
        for (begins, speed), until in zip(
            self.speeds, [*(s[0] for s in self.speeds[1:]), math.inf], strict=True
        ):
            if until <= start:
                continue
            begins = max(begins, start)
            if speed and begins + work / speed <= until:
                return begins + work / speed
            work -= speed * (until - begins) if speed else 0.0
        return math.inf

    def work_until(self, now: float) -> float:
        """Return the work it could have done by ``now``."""
        done = 0.0
        ends = [*(s[0] for s in self.speeds[1:]), math.inf]
        for (begins, speed), until in zip(self.speeds, ends, strict=True):
            begins, until = max(begins, self.joins), min(until, self.dies, now)
            done += speed * max(0.0, until - begins)
        return done


@dataclass(frozen=True, kw_only=True)
class World:
    """What happens, whoever schedules."""

    nodes: Sequence[Node]
    pieces: Sequence[Piece]
    costs: dict[str, float]

    @property
    def bound(self) -> float:
        """No schedule ends earlier: all work at all speed, and the longest chain at the highest."""
        total, low, high = sum(self.costs.values()), 0.0, 1.0
        while sum(node.work_until(high) for node in self.nodes) < total:
            low, high = high, 2 * high
        for _ in range(40):
            middle = (low + high) / 2
            enough = sum(node.work_until(middle) for node in self.nodes) >= total
            low, high = (low, middle) if enough else (middle, high)
        longest: dict[str, float] = {}
        for piece in self.pieces:
            longest[piece.key] = self.costs[piece.key] + longest.get(piece.after or "", 0.0)
        fastest = max(speed for node in self.nodes for _, speed in node.speeds)
        return max(high, max(longest.values()) / fastest)


def make_world(
    seed: int,
    *,
    nodes: int,
    units: int,
    chain: int = 5,
    mean_s: float = 6.0,
    hints: float | None = 0.3,
    slow: float = 0.02,
    hang: float = 0.005,
    die: float = 0.02,
    join: float = 0.05,
) -> World:
    """Draw a world.

    Parameters
    ----------
    mean_s : float
        Seconds of a mean unit on a mean node; costs are lognormal with sigma 1.
    hints : float or None
        Sigma of the lognormal error in what the scheduler is told of costs; None: told nothing.
    slow, hang, die, join : float
        Shares of the nodes that become 10 x slower, hang (and are found dead after 60 s), die
        (found after 10 s) or join late, each at a moment within the run.
    """
    random = np.random.default_rng(seed)
    costs = random.lognormal(0.0, 1.0, units)
    kinds = random.choice([*KINDS], nodes, p=(0.5, 0.3, 0.2))
    speeds = np.array([np.exp(random.uniform(*np.log(KINDS[kind]))) for kind in kinds])
    costs *= mean_s * speeds.mean() / costs.mean()
    ideal = costs.sum() / speeds.sum()
    fates = random.choice(5, nodes, p=(1 - slow - hang - die - join, slow, hang, die, join))
    fates[int(np.argmax(speeds))] = 0
    when = random.uniform(0.1, 0.9, nodes) * ideal
    made = []
    for number in range(nodes):
        node = Node(f"n{number}", str(kinds[number]), [(0.0, float(speeds[number]))])
        at = float(when[number])
        if fates[number] == 1:
            node.speeds.append((at, float(speeds[number]) / 10))
        elif fates[number] in (2, 3):
            node.dies, node.found_dead = at, at + (60.0 if fates[number] == 2 else 10.0)
        elif fates[number] == 4:
            node.joins = at / 2
        made.append(node)
    noise = np.ones(units) if hints is None else costs * random.lognormal(0.0, hints, units)
    keys = [f"u{number}" for number in range(units)]
    return World(
        nodes=made,
        pieces=[
            Piece(key, keys[number - 1] if number % chain else None, float(noise[number]))
            for number, key in enumerate(keys)
        ],
        costs={key: float(cost) for key, cost in zip(keys, costs, strict=True)},
    )


def replayed_world(path: str, *, nodes: int, seed: int, told: bool, mean_s: float = 6.0) -> World:
    """Make a world of the path of a real run: its chains, and the seconds each solution took.

    Parameters
    ----------
    path : str
        ``path.parquet`` of a run folder.
    told : bool
        Whether the scheduler is told what `pipelines.news.fitting.path.plan_units` tells of costs.
    mean_s : float
        Seconds of a mean unit on a mean node, for all to be slower in proportion.
    """
    table = pd.read_parquet(path)
    of_all = [part[part.fold == ALL_ROWS] for _, part in table.groupby("target", sort=False)]
    grids = [np.sort(part.alpha.to_numpy())[::-1] for part in of_all]
    folds = table.fold.nunique() - 1
    config = PathConfig()
    units = plan_units(grids, folds, config)
    names = [*table.target.unique()]
    solved = {
        (names.index(target), folds if fold == ALL_ROWS else fold): part.sort_values("alpha")[::-1]
        for (target, fold), part in table.groupby(["target", "fold"])
    }
    seconds = {}
    for unit in units:
        mine = solved[unit.payload["target"], unit.payload["fold"]]
        start = int(unit.key.rpartition("-a")[2])
        seconds[unit.key] = float(mine.seconds.iloc[start : start + config.stretch].sum())
    speeds = np.exp(np.random.default_rng(seed).uniform(0.0, np.log(10.0), nodes))
    scale = mean_s * speeds.mean() / np.mean([*seconds.values()])
    return World(
        nodes=[Node(f"n{n}", "cpu", [(0.0, float(speed))]) for n, speed in enumerate(speeds)],
        pieces=[Piece(unit.key, unit.after, unit.cost if told else 1.0) for unit in units],
        costs={key: scale * value for key, value in seconds.items()},
    )


class Driver(Protocol):
    """What the simulation needs of a scheduler."""

    left: int

    def add_worker(self, name: str, *, kind: str = "", node: str = "") -> None: ...
    def remove_worker(self, name: str) -> list[str]: ...
    def assign(self, now: float) -> list[Any]: ...
    def finished(self, group: Any, key: str, now: float, seconds: float) -> bool: ...


@dataclass
class Outcome:
    """What came of a simulated run."""

    makespan: float
    calls: int
    driver_s: float
    copies: int
    answers: dict[str, int] = field(default_factory=dict)  # by key, first ones


def simulate(world: World, driver: Driver) -> Outcome:
    """Run ``world`` to its end under ``driver``."""
    nodes = {node.name: node for node in world.nodes}
    number = iter(range(1 << 62))
    events: list[tuple[float, int, str, Any]] = []

    def at(when: float, what: str, about: Any = None) -> None:
        if when < math.inf:
            heapq.heappush(events, (when, next(number), what, about))

    for node in world.nodes:
        at(node.joins, "join", node)
        at(node.found_dead, "dead", node)
    at(0.0, "tick")
    outcome = Outcome(0.0, 0, 0.0, 0)
    while driver.left:
        now, _, what, about = heapq.heappop(events)
        started = time.process_time()
        if what == "join":
            driver.add_worker(about.name, kind=about.kind, node=about.name)
        elif what == "dead":
            driver.remove_worker(about.name)
        elif what == "answer":
            group, seconds = about
            for key in group.keys:
                first = driver.finished(group, key, now, seconds[key])
                outcome.answers[key] = outcome.answers.get(key, 0) + first
                outcome.copies += not first
        else:
            at(now + _TICK_S, "tick")
        given = driver.assign(now)
        outcome.driver_s += time.process_time() - started
        for group in given:
            outcome.calls += 1
            node = nodes[group.worker.name]
            moment = now + _LATENCY_S
            seconds = {}
            for key in group.keys:
                ends = node.ends(moment, world.costs[key])
                seconds[key], moment = ends - moment, ends
            if moment <= node.dies:
                at(moment, "answer", (group, seconds))
        outcome.makespan = now
    return outcome


class FirstComeFirstServed:
    """The peer: whoever is idle gets the next ready unit, in the order given."""

    @dataclass(eq=False)
    class _Call:
        worker: Any
        keys: tuple[str, ...]

    @dataclass(eq=False)
    class _Worker:
        name: str
        call: FirstComeFirstServed._Call | None = None

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._after: dict[str, list[str]] = {}
        for piece in pieces:
            self._after.setdefault(piece.after or "", []).append(piece.key)
        self._ready = deque(self._after.get("", []))
        self._idle: deque[FirstComeFirstServed._Worker] = deque()
        self._workers: dict[str, FirstComeFirstServed._Worker] = {}
        self.left = len(pieces)

    def add_worker(self, name: str, *, kind: str = "", node: str = "") -> None:
        self._workers[name] = self._Worker(name)
        self._idle.append(self._workers[name])

    def remove_worker(self, name: str) -> list[str]:
        worker = self._workers.pop(name)
        if worker in self._idle:
            self._idle.remove(worker)
        keys = [*worker.call.keys] if worker.call else []
        self._ready.extendleft(keys)
        return keys

    def assign(self, now: float) -> Iterator[FirstComeFirstServed._Call]:
        given = []
        while self._ready and self._idle:
            worker = self._idle.popleft()
            worker.call = self._Call(worker, (self._ready.popleft(),))
            given.append(worker.call)
        return given

    def finished(self, group: FirstComeFirstServed._Call, key: str, now: float, s: float) -> bool:
        group.worker.call = None
        self._idle.append(group.worker)
        self._ready.extend(self._after.get(key, []))
        self.left -= 1
        return True


def schedulers(world: World) -> dict[str, Driver]:
    """Return ours and the peer for one world."""
    return {"ours": Scheduler(world.pieces), "fifo": FirstComeFirstServed(world.pieces)}
