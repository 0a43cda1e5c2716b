"""The broker's rules for its successor: what it leaves behind, and what that expects."""

from __future__ import annotations

from aserpc.broker.managers import Managers
from aserpc.broker.roster import Roster
from aserpc.broker.tables import WorkerState
from aserpc.broker.workers import RETURN_GRACE

#: A request is left to the next broker when its worker has had it for so long, s: most are answered
#: sooner, and the roster need not be written for them.
LONG = 0.2

#: How soon those who are expected are spoken to first, s.
FIRST_TRIAL = 0.05


class Restart(Managers):
    """The broker's workers, managers and requests, from one broker to the next."""

    def roster(self, now: float) -> Roster:
        """Return what the next broker here should know."""
        roster = Roster(stopped=self.stopping)
        for worker in self.workers.values():
            keys = [key for key, job in worker.jobs.items() if now >= job.started_at + LONG]
            if len(keys) < len(worker.jobs):
                self.roster_changed = True  # soon they may have been there for long
            roster.workers[worker.peer] = worker.calculator.name, keys
        for manager in self.managers.values():
            names = sorted(manager.names)
            offer = {name: self.calculators[name].min_workers for name in names}
            roster.managers[manager.peer] = offer
        return roster

    def expect(self, roster: Roster, now: float) -> None:
        """Take over from the broker that served here before.

        A worker that computes cannot speak, but its connection comes back by itself. Requests for
        its calculator wait for it, and those that it computes are not computed elsewhere.
        """
        for peer, (name, keys) in roster.workers.items():
            worker = self._register(peer, name, WorkerState.RETURNING, now)
            worker.expected = True
            for key in keys:
                if key not in self.jobs:
                    self._adopt(worker, key, now)
            self._check_at(worker, now + FIRST_TRIAL)
        for peer, offer in roster.managers.items():
            self._expect_manager(peer, offer, now)
        if not roster.stopped:
            self.settles_at = now + RETURN_GRACE
