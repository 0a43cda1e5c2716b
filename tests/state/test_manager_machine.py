"""Any history of demands, starts, deaths and configurations: the manager keeps its limits."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aserpc.messages import Accept, Probe, Unknown
from aserpc.spawn import SpawnConfig

from .manager_desk import Site

NAMES = ("a", "b", "c")
names = st.sampled_from(NAMES)
numbers = st.integers(0, 1000)


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, SpawnConfig]:
    """Draw what a site may configure."""
    configs = {}
    for name in draw(st.sets(names, min_size=1)):
        most = draw(st.integers(1, 3))
        configs[name] = SpawnConfig(
            name,
            ["worker"],
            max_workers=most,
            min_workers=draw(st.sampled_from([0, 0, 0, 1, most])),
            gpus=draw(st.sampled_from([0, 0.5, 1, 2])),
            start_timeout=draw(st.sampled_from([10.0, 30.0])),
            stop_timeout=draw(st.sampled_from([2.0, 5.0])),
            max_restarts=draw(st.integers(0, 3)),
        )
    return configs


def has_children(machine: ManagerMachine) -> bool:
    return bool(machine.site.children)


class ManagerMachine(RuleBasedStateMachine):
    """A broker, processes, time and accidents around a manager's state."""

    @initialize(
        configs=configurations(),
        gpus=st.integers(0, 3),
        total=st.one_of(st.none(), st.integers(1, 5)),
    )
    def begin(self, configs: dict[str, SpawnConfig], gpus: int, total: int | None) -> None:
        self.site = Site(configs, [str(number) for number in range(gpus)], total)

    def child(self, number: int) -> str:
        return list(self.site.children)[number % len(self.site.children)]

    # ---- the broker ------------------------------------------------------------------------------

    @rule(
        name=names,
        queued=st.integers(0, 20),
        seconds=st.sampled_from([0.0, 0.01, 2.0, 100.0]),
        others=st.sampled_from([0, 0, 0, 1]),
    )
    def demand(self, name: str, queued: int, seconds: float, others: int) -> None:
        if name in self.site.configs:
            self.site.demand(name, queued, seconds, others)

    @rule(name=names)
    def refuse(self, name: str) -> None:
        if name in self.site.configs:
            self.site.refused.add(name)
            self.site.receive(Accept([[name, "the manager in process 2"]]))

    @rule()
    def accept(self) -> None:
        self.site.receive(Accept([]))

    @rule()
    def restart_broker(self) -> None:
        self.site.refused.clear()
        self.site.receive(Unknown())

    @rule()
    def probe(self) -> None:
        self.site.receive(Probe())

    # ---- processes -------------------------------------------------------------------------------

    @precondition(has_children)
    @rule(number=numbers)
    def let_run(self, number: int) -> None:
        self.site.let_run(self.child(number))

    @precondition(has_children)
    @rule(number=numbers, line=st.sampled_from(["", "loading"]))
    def tell(self, number: int, line: str) -> None:
        self.site.take(self.site.state.tell(self.child(number), line, self.site.now))

    @precondition(has_children)
    @rule(number=numbers, state=st.sampled_from(["idle", "busy"]), idle=st.floats(0, 5))
    def get_ready(self, number: int, state: str, idle: float) -> None:
        self.site.get_ready(self.child(number), state, idle)

    @precondition(has_children)
    @rule(number=numbers, how=st.sampled_from(["ended with exit code 0", "was killed"]))
    def end(self, number: int, how: str) -> None:
        self.site.end(self.child(number), how)

    @rule(name=names)
    def break_or_mend(self, name: str) -> None:
        self.site.broken ^= {name}

    # ---- the site --------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 3.0, 10.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.site.wait(seconds)

    @rule(configs=configurations())
    def reload(self, configs: dict[str, SpawnConfig]) -> None:
        self.site.reload(configs)

    @precondition(lambda machine: machine.site.now > 30)
    @rule()
    def finish(self) -> None:
        self.site.take(self.site.state.finish(self.site.now))

    # ---- what must hold --------------------------------------------------------------------------

    @invariant()
    def the_state_is_what_is(self) -> None:
        if hasattr(self, "site"):
            self.site.check()

    def teardown(self) -> None:
        """Have all demand end: nothing may be left."""
        if not hasattr(self, "site"):
            return
        site = self.site
        finishing = site.state.finishing
        if not finishing:
            site.reload({})
        site.wait(6.0)  # stop_timeout, then KILL
        assert not site.children
        assert not site.state.devices._taken
        assert site.state.ended is finishing
        if not finishing:
            assert not site.state.fleets, "a calculator is kept that is configured no longer"
            assert not site.offered


ManagerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestManager = ManagerMachine.TestCase
