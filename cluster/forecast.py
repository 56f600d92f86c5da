"""When will it be done: speeds measured from finished work, and the ends they promise."""

import math
from collections import defaultdict
from heapq import heappop, heappush

from cluster.chains import rank_level
from cluster.pieces import Group, Item, Rate, Worker

_KEPT = 0.7  # of a worker's earlier measurements, at each new one
_KEPT_OF_KIND = 0.995
_PRIOR = 0.2  # weight of its kind in the speed of a worker, in groups
_KEPT_SPREAD = 0.98
_FIRST_SPREAD = 0.5  # log-ratio of measured to expected seconds, before anything is measured
_MOST_SURPRISING = 2.0
_OVERDUE_S, _OVERDUE_TIMES = 30.0, 4.0
_OVERDUE_UNMEASURED_S = 600.0  # when no piece has been done yet


class Forecast:
    """Speeds of workers, and what follows from them for the pieces they hold.

    Every question costs the logarithm of the number of workers, or less.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, Rate] = defaultdict(Rate)
        self._unmeasured: dict[str, int] = defaultdict(int)
        self._levels: dict[int, int] = defaultdict(int)  # workers of about equal speed
        self._known_speed = 0.0
        self.total_speed = 0.0  # of all workers together, as far as anything is known
        self._busy_speed = self._busy_ends = 0.0  # sums of speed and of speed x end
        self._ending: list[tuple[float, int, Group]] = []
        self._latest: list[tuple[float, int, Group]] = []
        self._by_level: dict[int, list[tuple[float, int, Group]]] = defaultdict(list)
        self._variance = _FIRST_SPREAD**2

    @property
    def spread(self) -> float:
        """By what factor a piece may take longer than its cost says, two times in a hundred."""
        return math.exp(2 * math.sqrt(self._variance))

    def join(self, worker: Worker) -> None:
        """Count a worker, about which nothing is known but its kind."""
        self._unmeasured[worker.kind] += 1
        self._add_up()

    def leave(self, worker: Worker) -> None:
        """Count a worker no more."""
        self._drop(worker)
        self._add_up()

    def _drop(self, worker: Worker) -> None:
        if worker.speed is None:
            self._unmeasured[worker.kind] -= 1
        else:
            self._known_speed -= worker.speed
            self._levels[rank_level(worker.speed)] -= 1

    def speed(self, worker: Worker) -> float | None:
        """Return a worker's speed, or that of its kind, or what others do on average."""
        return worker.speed or self._of_kind(worker.kind) or self._of_anyone()

    def fastest(self) -> float | None:
        """Return about the highest speed that a worker has shown."""
        level = max((level for level, n in self._levels.items() if n), default=None)
        return None if level is None else 1.25 ** (level + 1)

    def _add_up(self) -> None:
        guessed = sum(n * (self._of_kind(kind) or 0.0) for kind, n in self._unmeasured.items() if n)
        self.total_speed = max(self._known_speed, 0.0) + guessed

    def _of_kind(self, kind: str) -> float | None:
        rate = self._kinds.get(kind)
        return rate.work / rate.seconds if rate is not None and rate.seconds > 0 else None

    def _of_anyone(self) -> float | None:
        speeds = [s for kind in self._kinds if (s := self._of_kind(kind)) is not None]
        return sum(speeds) / len(speeds) if speeds else None

    def begin(self, group: Group) -> None:
        """Expect a group to end, from the speed of its worker and its cost."""
        group.speed = self.speed(group.worker)
        if group.speed is None:
            return
        group.ends = group.began + group.work / group.speed
        group.tail_s = group.tail / (self.fastest() or group.speed) if group.tail else 0.0
        self._busy_speed += group.speed
        self._expect(group)

    def close(self, group: Group) -> None:
        """Forget a group; what it measured tells how fast its worker is."""
        if group.speed is not None:
            self._busy_speed -= group.speed
            self._busy_ends -= group.speed * group.ends
            group.ends = math.inf
        if not group.measured_work:
            return
        worker, work = group.worker, group.measured_work
        seconds = max(group.measured_s, 1e-6)
        if group.speed is not None:
            surprise = math.log(seconds * group.speed / work)
            surprise = min(max(surprise, -_MOST_SURPRISING), _MOST_SURPRISING)
            self._variance += (1 - _KEPT_SPREAD) * (surprise**2 - self._variance)
        kind = self._kinds[worker.kind]
        kind.add(work, seconds, _KEPT_OF_KIND)
        if worker.gone:
            return
        self._drop(worker)
        # The first call also loads libraries: it counts until there is a second.
        worker.rate.add(work, seconds, _KEPT if worker.trials > 1 else 0.0)
        worker.trials += 1
        # A little of its kind keeps a first measurement from misleading.
        prior = _PRIOR * kind.seconds / kind.groups
        of_kind = kind.work / kind.seconds
        worker.speed = (worker.rate.work + prior * of_kind) / (worker.rate.seconds + prior)
        self._known_speed += worker.speed
        self._levels[rank_level(worker.speed)] += 1
        self._add_up()

    def horizon(self, now: float, unstarted: float) -> float:
        """Return when all would be done if work flowed like water, chains apart."""
        self.put_off(now)
        held = max(0.0, self._busy_ends - now * self._busy_speed)
        total = self.total_speed
        flow = now + (unstarted + held) / total if total else math.inf
        while self._latest and -self._latest[0][0] != _done(self._latest[0][2]):
            heappop(self._latest)
        return max(flow, -self._latest[0][0] if self._latest else 0.0)

    def elsewhere(self, item: Item) -> float:
        """Return when ``item`` would be done by the best of the workers that are busy now."""
        best = math.inf
        for heap in self._by_level.values():
            while heap and heap[0][0] != heap[0][2].ends:
                heappop(heap)
            if heap:
                ends, _, group = heap[0]
                best = min(best, ends + item.cost / (group.speed or 1.0))
        return best

    def ends(self, group: Group, now: float) -> float | None:
        """Return when a group should come back: the later it is, the longer it will take."""
        expected = self.seconds(group)
        if expected is None:
            return None
        elapsed = now - group.began
        return group.began + expected if elapsed <= expected else now + elapsed / 2

    def seconds(self, group: Group) -> float | None:
        """Return how long a group should take from its begin."""
        speed = group.speed or self.speed(group.worker)
        return None if speed is None else group.work / speed

    def work_elsewhere(self, item: Item, group: Group, now: float) -> float:
        """Guess the work in a piece whose group is late: more than its cost said, to a degree."""
        late = max(1.0, (now - group.began) / max(self.seconds(group) or math.inf, 1e-9))
        return item.cost * min(late, self.spread)

    def overdue_at(self, group: Group, *, idle: bool) -> float:
        """Return from when a group counts as stalled; sooner where someone idle could help."""
        expected = self.seconds(group)
        if expected is None:
            return group.began + _OVERDUE_UNMEASURED_S
        factor = _OVERDUE_TIMES if idle else _OVERDUE_TIMES * self.spread
        return group.began + group.patience * max(_OVERDUE_S, factor * expected)

    def _expect(self, group: Group) -> None:
        assert group.speed is not None
        self._busy_ends += group.speed * group.ends
        entry = (group.ends, group.number, group)
        heappush(self._ending, entry)
        heappush(self._by_level[rank_level(group.speed)], entry)
        heappush(self._latest, (-_done(group), group.number, group))

    def put_off(self, now: float) -> None:
        """Expect groups that should have ended somewhat later; each less often as it ages."""
        while self._ending and self._ending[0][0] < now:
            ends, _, group = heappop(self._ending)
            if ends == group.ends and group.speed is not None:
                self._busy_ends -= group.speed * ends
                group.ends = now + (now - group.began) / 2
                self._expect(group)


def _done(group: Group) -> float:
    """Return when the chains that a group heads could be done, were the fastest to go on."""
    return group.ends + group.tail_s
