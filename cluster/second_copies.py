"""Which pieces to give to a second worker, as the first has stalled or is clearly slower."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush

from cluster.forecast import Forecast
from cluster.pieces import Group, Item, State, Worker

_CLEARLY = 2 / 3  # of the time that the first copy still needs
_WORTH_S = 0.5  # what the first copy still needs, at least
_LOOKED_AT = 8


class SecondCopies:
    """What is wanted a second time.

    Parameters
    ----------
    forecast : Forecast
    groups : mapping of number to Group
        Those that are out, kept up by the caller, as are ``nodes``: workers by node.
    """

    def __init__(
        self, forecast: Forecast, groups: Mapping[int, Group], nodes: Mapping[str, int]
    ) -> None:
        self._forecast, self._groups, self._nodes = forecast, groups, nodes
        self._deadlines: list[tuple[float, int, Group]] = []
        self._again: list[tuple[float, int, Item]] = []

    def watch(self, group: Group) -> None:
        """Note when a group will be overdue."""
        overdue_at = self._forecast.overdue_at(group, idle=False)
        heappush(self._deadlines, (overdue_at, group.number, group))

    def want(self, item: Item) -> None:
        """Put an item up if it is overdue, and could start."""
        if item.state is State.RUNNING and item.overdue and item.startable:
            heappush(self._again, (-item.rank, item.place, item))

    def call_overdue(self, now: float) -> None:
        """Put the pieces of overdue groups up a second time."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, group = heappop(self._deadlines)
            if group.number not in self._groups:
                continue
            # Its speed may have become known only now.
            if (later := self._forecast.overdue_at(group, idle=False)) > now:
                heappush(self._deadlines, (later, group.number, group))
                continue
            group.overdue = True
            for item in group.open.values():
                if item.state is State.RUNNING and all(held.overdue for held in item.holders):
                    item.overdue = True
                    self.want(item)

    def take(self, worker: Worker) -> Item | None:
        """Return an overdue piece that ``worker`` may do as well."""
        passed: list[tuple[float, int, Item]] = []
        found = None
        while self._again and found is None and len(passed) < _LOOKED_AT:
            entry = heappop(self._again)
            if entry[2].overdue and entry[2].state is State.RUNNING:
                if self._apart(worker, entry[2].holders):
                    found = entry[2]
                else:
                    passed.append(entry)
        for entry in passed:
            heappush(self._again, entry)
        return found

    def _apart(self, worker: Worker, holders: list[Group]) -> bool:
        """Whether ``worker`` is not one of the holders, and on another node where there is one."""
        nodes = {group.worker.node for group in holders}
        if self._nodes.keys() - nodes:
            return worker.node not in nodes
        return all(group.worker is not worker for group in holders)

    def choose(
        self, worker: Worker, late: Sequence[int], ends: Mapping[int, float], now: float
    ) -> list[Item]:
        """Return pieces that an idle worker would clearly end sooner than the group they are in.

        Parameters
        ----------
        late : sequence of int
            Numbers of groups to look at, those that end last first.
        ends : mapping
            When they should.
        """
        self._forecast.put_off(now)
        looked_at = 0
        for number in late:
            group = self._groups[number]
            if group.copies or not self._apart(worker, [group]):
                continue
            if items := self._worth_copying(group, worker, ends[number], now):
                return items
            looked_at += 1
            if looked_at == _LOOKED_AT:
                break
        return []

    def _worth_copying(self, group: Group, worker: Worker, ends: float, now: float) -> list[Item]:
        """Choose pieces of a group, whose answers all come when its last one is done."""
        speed = self._forecast.speed(worker)
        if not speed:
            return []
        stalled = now >= self._forecast.overdue_at(group, idle=True)
        if ends - now < _WORTH_S and not stalled:
            return []
        until = math.inf if stalled else now + _CLEARLY * (ends - now)
        chosen: list[Item] = []
        done_at = now
        for item in group.open.values():
            if item.state is not State.RUNNING or len(item.holders) > 1:
                continue
            done_at += self._forecast.work_elsewhere(item, group, now) / speed
            if done_at > until or not (item.startable or item.after in chosen):
                break
            if not chosen and now + item.cost / speed > self._forecast.elsewhere(item):
                break  # one of the busy workers is a better choice, if not just yet
            chosen.append(item)
        return chosen
