"""One run of a job with all that goes wrong in it, and what came of each fault."""

import random
import re
import shutil
import time
from collections import deque
from dataclasses import asdict, dataclass, field

from chaos.faults import GONE, Scene, strike
from chaos.jobs import differences, files_left
from chaos.plan import EMBEDDED, SMALL_DISK
from driver import Driver

_HANGS_S, _HANGS_TIMES = 200.0, 8  # an episode that takes longer than undisturbed runs hangs
_POLL_S = 0.03
_AGAIN = re.compile(r"^.*?: (?:shard|unit) (\S+) again after", re.MULTILINE)
_LEFT = re.compile(r"^.*? has left: \d+ (?:shards|units) again", re.MULTILINE)
_RERUNS = 2  # unplanned ones: the run is counted as lost, but its other faults still happen


@dataclass(frozen=True)
class Baseline:
    """An undisturbed run: seconds, pieces of each phase, outputs."""

    seconds: float
    pieces: dict
    outputs: dict


@dataclass
class Outcome:
    """What came of one fault: ``missed`` when it hit nobody at work, else ``survived`` or not."""

    scenario: str
    variant: str
    job: str
    phase: str
    moment: float
    victim: str = ""
    missed: bool = False
    survived: bool = False
    recovery_s: float | None = None
    extra_s: float | None = None
    note: str = ""


@dataclass(eq=False)
class Running:
    """The job under way: its driver, what it has finished and what it has said."""

    job: object
    out: object
    environment: dict
    data: object
    options: tuple = ()
    step: int = 0
    said: str = ""
    driver: Driver | None = None
    _read: int = 0

    def start(self, step=0):
        """Type the command of a step; after a fault, that of the first step again."""
        words = [word.format(out=self.out, data=self.data) for word in self.job.steps[step]]
        options = self.options if "score" not in words[:2] or words[0] == "fpcb" else ()
        self.step, self._read = step, 0
        self.driver = Driver(self.out, self.environment, *words, *options)

    def listen(self):
        """Return what the driver has said since the last call."""
        text = self.driver.log.read_text(errors="replace")
        new, self._read = text[self._read :], len(text)
        self.said += new
        return new

    def count(self, phase=None):
        """Return the pieces finished so far, of one phase or all."""
        return len(self.job.finished(self.out, phase))

    def has_done_all(self):
        """Tell whether the last step has written its last file."""
        return (self.out / self.job.last).exists()


@dataclass(eq=False)
class Episode:
    """Plays one `plan.Episode`.

    Parameters
    ----------
    field : Field
    planned : plan.Episode
    job : Job
    baseline : Baseline
    folder : Path
        Of run folders.
    data : Path
    disk : SmallDisk, optional
    tell : callable
        Takes a line for the user.
    """

    field: object
    planned: object
    job: object
    baseline: Baseline
    folder: object
    data: object
    seed: object
    disk: object = None
    tell: object = print
    strikes: list = field(default_factory=list)

    def play(self):
        """Run to the end; return an `Outcome` for each fault."""
        where = self.planned.where
        base = self.disk.folder if where == SMALL_DISK else self.folder
        out = base / f"run-{self.planned.number}"
        shutil.rmtree(out, ignore_errors=True)
        environment = self.field.alone if where == EMBEDDED else self.field.joining
        own = ("--num-cpus", "2", "--object-store-gib", "0.3") if where == EMBEDDED else ()
        self.run = Running(self.job, out, environment, self.data, own)
        self.rng = random.Random(f"{self.seed}/{self.planned.number}")
        self.waiting = deque(self.planned.faults)
        self.outcomes, self.trouble = [], []
        started = time.monotonic()
        try:
            self._watch(started)
        finally:
            self.run.driver.kill() if self.run.driver.process.poll() is None else None
            self._undo(everything=True)
        seconds = time.monotonic() - started
        self._compare(out, seconds)
        shutil.rmtree(out, ignore_errors=True)
        self.run.driver.log.unlink(missing_ok=True)
        return self.outcomes

    def _watch(self, started):
        run, reruns = self.run, 0
        run.start()
        while True:
            now = time.monotonic()
            self._follow(now)
            self._undo(now=now)
            if now - started > _HANGS_S + _HANGS_TIMES * self.baseline.seconds:
                self.trouble.append(f"hangs: {run.listen()[-300:] or run.said[-300:]}")
                return
            if self.waiting and self._settled():
                self._try(now)
            code = run.driver.process.poll()
            if code is None:
                time.sleep(_POLL_S)
                continue
            self._follow(time.monotonic())
            if code == 0 and run.step + 1 < len(run.job.steps):
                run.start(run.step + 1)
            elif code == 0:
                break
            else:
                reruns += 1
                self.trouble.append(f"exit code {code}: {run.said.strip()[-500:]}")
                if reruns > _RERUNS:
                    return
                run.start()
        for fault in self.waiting:
            self.outcomes.append(self._outcome(fault, missed=True, note="the run was over"))
        self._end(time.monotonic())

    def _try(self, now):
        """Strike when the moment of the next fault has come."""
        fault = self.waiting[0]
        phase, total = self.job.phase(fault.phase), self.baseline.pieces[fault.phase]
        done = self.run.count(phase)
        if done >= total or self.run.has_done_all():
            self.waiting.popleft()
            self.outcomes.append(self._outcome(fault, missed=True, note="the phase was over"))
            return
        if done < fault.after(total):
            return
        scene = Scene(
            self.field, self.run.driver, self.job, phase, self.run.out, self.disk, self.rng
        )
        try:
            hit = strike(fault.variant.victim, scene)
        except GONE:
            return
        if hit is None:
            return
        self.waiting.popleft()
        outcome = self._outcome(fault, victim=hit.victim, note=hit.complaint)
        self.outcomes.append(outcome)
        self.strikes.append(_Open(hit, outcome, self.run.count()))
        if hit.restart:
            self.run.listen()
            self.run.start()

    def _follow(self, now):
        """See what has been done again since the last strike."""
        said = self.run.listen()
        if not self.strikes:
            return
        last = self.strikes[-1]
        last.lost |= set(_AGAIN.findall(said))
        last.noted = last.noted or bool(last.lost or _LEFT.search(said))
        if last.outcome.recovery_s is None:
            phase = self.job.phase(last.outcome.phase)
            lost = last.lost - {key for _, key in self.job.finished(self.run.out, phase)}
            if self.run.count() > last.before and not lost:
                self._recovered(last, now)

    def _recovered(self, one, now):
        one.outcome.recovery_s = round(now - one.strike.at, 2)
        if not one.outcome.missed:
            what = f"{one.outcome.job}/{one.outcome.phase}: {one.strike.victim}"
            self.tell(f"{one.outcome.scenario:17} {what} · going on after "
                      f"{one.outcome.recovery_s:.1f} s")  # fmt: skip

    def _settled(self):
        """Tell whether what was struck last has been mended: faults come one by one."""
        return not self.strikes or self.strikes[-1].outcome.recovery_s is not None

    def _undo(self, now=float("inf"), *, everything=False):
        for one in self.strikes:
            if one.strike.undo is not None and (everything or one.strike.until <= now):
                one.strike.undo()
                one.strike.undo = None

    def _end(self, now):
        for one in self.strikes:
            if one.strike.noted and not one.noted:
                one.outcome.missed, one.outcome.note = True, "nothing had to be done again"
            if one.outcome.recovery_s is None:
                self._recovered(one, now)

    def _compare(self, out, seconds):
        """Hold the outputs against the undisturbed run's."""
        wrong = self.trouble + differences(self.job.outputs(out), self.baseline.outputs)
        wrong += files_left(out)
        hits = [outcome for outcome in self.outcomes if not outcome.missed]
        for outcome in hits:
            outcome.survived = not wrong and not outcome.note
            outcome.extra_s = round((seconds - self.baseline.seconds) / len(hits), 2)
            outcome.note = "; ".join([outcome.note, *wrong]).strip("; ")
        if wrong:
            self.tell(f"episode {self.planned.number} ({self.job.name}): {'; '.join(wrong)}")
            keep = self.folder / f"lost-{self.planned.number}.log"
            keep.write_text(self.run.said)

    def _outcome(self, fault, **more):
        return Outcome(
            fault.scenario, fault.variant.victim, fault.job, fault.phase, fault.moment, **more
        )


@dataclass(eq=False)
class _Open:
    strike: object
    outcome: Outcome
    before: int
    lost: set = field(default_factory=set)
    noted: bool = False


def undisturbed(field, job, folder, data):
    """Run a job with nothing wrong; each run starts workers of its own, so none is warmer."""
    out = folder / f"undisturbed-{job.name}"
    run = Running(job, out, field.joining, data)
    started = time.monotonic()
    for step in range(len(job.steps)):
        run.start(step)
        assert run.driver.process.wait() == 0, run.driver.said
    seconds = time.monotonic() - started
    pieces = {phase.name: run.count(phase) for phase in job.phases}
    return Baseline(seconds, pieces, job.outputs(out))


def as_row(outcome):
    """Return an outcome as plain values."""
    return asdict(outcome)
