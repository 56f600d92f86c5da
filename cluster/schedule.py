"""Who does what next: pieces of work for workers of unequal speed, so that all end together.

Nothing here knows Ray or a clock: times are passed in, and equal calls give equal answers. Pieces
are never cut; only how many of them travel in one call follows from measured speed.

- Of what is ready, pieces that head the longest chains of work go first.
- A group lasts about ``target_s``, but never more than half of what an even share of the work
  left would take (guided self-scheduling), so that groups shrink to single pieces at the end.
- A slow worker gets no piece that would end after everything else, when a busy one is done with
  it sooner.
- A piece that is overdue, or that somebody idle would clearly end sooner, is given out a second
  time; the first answer counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

from cluster.chains import ReadyItems, link, rank_level
from cluster.forecast import Forecast
from cluster.pieces import Group, Item, Piece, State, Worker
from cluster.second_copies import SecondCopies

_LOOK_S = 0.5
_LOOKED_AT = 8
_TRIALS = 2


class Scheduler:
    """Hands pieces to workers.

    Parameters
    ----------
    pieces : iterable of Piece
        All of them; the order decides between equals.
    done : collection of str
        Keys of those that need not be done.
    target_s : float
        How long a group should last.
    max_group : int
        Pieces in a group at most.
    queue : int
        Groups that a worker holds at a time.
    """

    def __init__(
        self,
        pieces: Iterable[Piece],
        *,
        done: Iterable[str] = (),
        target_s: float = 2.0,
        max_group: int = 256,
        queue: int = 1,
    ) -> None:
        self._target_s, self._max_group, self._queue = target_s, max_group, queue
        self._items = link(pieces)
        self._ready = ReadyItems()
        self._idle: list[tuple[int, float, int, Worker]] = []
        self._workers: dict[str, Worker] = {}
        self._nodes: dict[str, int] = {}
        self._groups: dict[int, Group] = {}
        self._forecast = Forecast()
        self._copies = SecondCopies(self._forecast, self._groups, self._nodes)
        self._count = self._joined = 0
        self._look_at = 0.0
        for key in done:
            self._items[key].state = State.DONE
        todo = [item for item in self._items.values() if item.state is not State.DONE]
        self.left = len(todo)
        self._unstarted = sum(item.cost for item in todo)
        for item in todo:
            self._release(item)

    @property
    def stalled(self) -> list[Worker]:
        """Workers that hold an overdue group."""
        return [w for w in self._workers.values() if any(group.overdue for group in w.groups)]

    def add_worker(self, name: str, *, kind: str = "", node: str = "") -> None:
        """Let a worker take pieces; what its kind has shown is its speed at first."""
        self._joined += 1
        worker = Worker(name, kind, node, self._joined)
        self._workers[name] = worker
        self._nodes[node] = self._nodes.get(node, 0) + 1
        self._forecast.join(worker)
        self._offer(worker)

    def remove_worker(self, name: str) -> list[str]:
        """Forget a worker; return the keys it gives back. An answer of its may still come."""
        worker = self._workers.pop(name)
        worker.gone = True
        self._nodes[worker.node] -= 1
        if not self._nodes[worker.node]:
            del self._nodes[worker.node]
        self._forecast.leave(worker)
        keys = [key for group in worker.groups for key in group.open]
        for group in [*worker.groups]:
            for item in group.open.values():
                item.holders.remove(group)
                self._give_back(item)
            self._close(group)
        return keys

    def assign(self, now: float) -> list[Group]:
        """Return new groups for workers with room: the fastest first."""
        self._copies.call_overdue(now)
        given: list[Group] = []
        while (worker := self._next_idle()) is not None:
            group = self._group(worker, now)
            if group is None:
                break
            given.append(group)
            self._settle(worker)
        if self._idle and now >= self._look_at:
            self._look_at = now + _LOOK_S
            given += self._help(now)
        return given

    def finished(self, group: Group, key: str, now: float, seconds: float) -> bool:
        """Take an answer: ``seconds`` is the worker's own time. Return whether it is the first."""
        item = group.open.pop(key, None) or self._items[key]
        if group in item.holders:
            item.holders.remove(group)
            group.measured_work += item.cost
            group.measured_s += seconds
        first = item.state is not State.DONE
        if first:
            if item.state is not State.RUNNING:
                self._unstarted -= item.cost
            item.state = State.DONE
            self.left -= 1
            for follower in item.followers:
                self._release(follower)
            group.worker.next_in_chain = item.followers[0] if item.followers else None
        if not group.open and group.number in self._groups:
            self._close(group)
        return first

    def lost(self, group: Group, key: str, *, alone: bool = True) -> None:
        """Take a piece back that was not done; ``alone``: it shares no call with others again."""
        item = group.open.pop(key, None)
        if item is not None and group in item.holders:
            item.holders.remove(group)
            item.alone = item.alone or alone
            self._give_back(item)
        if not group.open and group.number in self._groups:
            self._close(group)

    def hopeless(self, now: float) -> list[Group]:
        """Return groups to end by force: all workers have stalled, so that nobody can take over.

        The next attempt is given twice the time.
        """
        if len(self.stalled) < len(self._workers):
            return []
        found = []
        for group in self._groups.values():
            waits = self._forecast.overdue_at(group, idle=False) - group.began
            measured = self._forecast.seconds(group) is not None
            if group.overdue and measured and now >= group.began + 2 * waits:
                found.append(group)
        for item in [item for group in found for item in group.open.values()]:
            item.patience *= 2
        return found

    def drop(self, key: str) -> None:
        """Give a piece up, with all that follows it."""
        for item in (pending := [self._items[key]]):
            if item.state is not State.DONE:
                if item.state is not State.RUNNING:
                    self._unstarted -= item.cost
                item.state = State.DONE
                self.left -= 1
            pending += item.followers

    def unneeded(self, key: str) -> list[Group]:
        """Return the groups that work on ``key`` and nothing else that is still wanted."""
        return [
            group
            for group in self._items[key].holders
            if all(item.state is State.DONE for item in group.open.values())
        ]

    def _release(self, item: Item) -> None:
        if item.state is State.BLOCKED and item.startable:
            item.state = State.READY
            self._ready.push(item)
        else:
            self._copies.want(item)

    def _give_back(self, item: Item) -> None:
        if item.state is State.RUNNING and not item.holders:
            item.state, item.overdue = State.BLOCKED, False
            self._unstarted += item.cost
            self._release(item)

    def _close(self, group: Group) -> None:
        del self._groups[group.number]
        group.worker.groups.remove(group)
        self._forecast.close(group)
        if not group.worker.gone:
            self._offer(group.worker)

    def _offer(self, worker: Worker) -> None:
        speed = self._forecast.speed(worker) or 0.0
        heappush(self._idle, (len(worker.groups), -speed, worker.number, worker))

    def _next_idle(self) -> Worker | None:
        while self._idle:
            load, _, _, worker = self._idle[0]
            if not worker.gone and load == len(worker.groups) < self._queue:
                return worker
            heappop(self._idle)
        return None

    def _settle(self, worker: Worker) -> None:
        """Note that a worker has taken a group: entries that show less load are out of date."""
        if len(worker.groups) < self._queue:
            self._offer(worker)

    def _group(self, worker: Worker, now: float) -> Group | None:
        """Make up a group for one worker, or None when there is nothing that it should do."""
        speed = self._forecast.speed(worker)
        total = self._forecast.total_speed
        limit_s = min(self._target_s, self._unstarted / (2 * total)) if total > 0 else 0.0
        start = max([now, *(group.ends for group in worker.groups if group.speed)])
        taken: list[Item] = []
        work, local = 0.0, list[tuple[float, int, Item]]()
        for item in self._candidates(worker, start, speed, taken, local):
            seconds = (work + item.cost) / speed if speed else 0.0
            if taken and (item.alone or seconds > limit_s or len(taken) == self._max_group):
                self._release(item)
                break
            self._take(item)
            taken.append(item)
            work += item.cost
            if item.alone or not worker.trials:
                break
            for follower in item.followers:
                if follower.state is State.BLOCKED:
                    heappush(local, (-follower.rank, follower.place, follower))
        return self._send(worker, taken, start) if taken else None

    def _candidates(
        self,
        worker: Worker,
        start: float,
        speed: float | None,
        taken: list[Item],
        local: list[tuple[float, int, Item]],
    ) -> Iterator[Item]:
        """Yield what ``worker`` could do next; what is yielded must be taken before the next."""
        while (again := self._copies.take(worker)) is not None:
            yield again
        ahead = 0.0
        while True:
            item = self._fitting(worker, start + ahead, speed)
            if local and (item is None or -local[0][0] >= item.rank):
                item = heappop(local)[2]
            if item is None:
                return
            yield item
            ahead += item.cost / speed if speed else 0.0

    def _take(self, item: Item) -> None:
        if item.state is not State.RUNNING:
            self._unstarted -= item.cost
        item.state = State.RUNNING

    def _send(self, worker: Worker, items: list[Item], start: float) -> Group:
        self._count += 1
        group = Group(self._count, worker, {item.key: item for item in items}, start)
        group.work = sum(item.cost for item in items)
        group.tail = max(item.tail for item in items)
        group.copies = any(item.holders for item in items)
        group.patience = max(item.patience for item in items)
        for item in items:
            item.holders.append(group)
            item.overdue = False
        self._groups[group.number] = group
        worker.groups.append(group)
        self._forecast.begin(group)
        self._copies.watch(group)
        return group

    def _fitting(self, worker: Worker, start: float, speed: float | None) -> Item | None:
        """Return the first ready piece that ``worker`` should rather do than leave to others."""
        top = self._ready.top()
        if top is None:
            return None
        if speed is None or not worker.trials:
            return self._ready.least()  # a trial: who knows how slow it is
        follower, worker.next_in_chain = worker.next_in_chain, None
        if (
            follower is not None
            and follower.state is State.READY
            and rank_level(follower.rank) == rank_level(top.rank)
        ):
            top = follower
        horizon = self._forecast.horizon(start, self._unstarted)
        fastest = self._forecast.fastest() or speed
        if start + top.cost / speed + top.tail / fastest <= horizon:
            return top
        for item in self._ready.tops():
            ends = start + item.cost / speed
            if ends + item.tail / fastest <= horizon or ends <= self._forecast.elsewhere(item):
                return item
        return self._ready.least() if worker.trials < _TRIALS else None

    def _help(self, now: float) -> list[Group]:
        """Give idle workers a copy of what they would clearly end sooner than who has it."""
        ends = {n: e for n, g in self._groups.items() if (e := self._forecast.ends(g, now))}
        late = sorted(ends, key=lambda number: -ends[number])
        given: list[Group] = []
        refused: list[Worker] = []
        while (worker := self._next_idle()) is not None and not worker.groups:
            heappop(self._idle)
            group = self._group(worker, now)
            if group is None and (items := self._copies.choose(worker, late, ends, now)):
                group = self._send(worker, items, now)
            if group is not None:
                given.append(group)
                self._settle(worker)
            else:
                refused.append(worker)
                if len(refused) == _LOOKED_AT:
                    break
        for worker in refused:
            self._offer(worker)
        return given
