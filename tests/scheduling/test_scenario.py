"""Scenario files: what they mean, and what is told about what they cannot mean."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pytest

from pyvirt.errors import AdmissionError, InvalidValueError, PyvirtError
from pyvirt.sched import (
    PLUGS,
    OnOff,
    Periodic,
    Poisson,
    PythonPolicy,
    Scenario,
    ScenarioPool,
    ScenarioVM,
    Scheduler,
    Topology,
    workload_fields,
)
from pyvirt.sched.fields import key_lines
from pyvirt.sched.policy_options import WEIGHTS_ONLY

MS = 1_000_000
TEXT = """\
cpus = 4
duration = "2s"
interval = "500ms"
seed = 7
quantum = "1ms"

[policy]
name = "eevdf"
linux_tick = "4ms"

[[vm]]
name = "web"   # a [ in a comment
vcpus = 2
shares = "high"
workload = {kind = "poisson", work = "2ms", gap = "20ms"}

[[vm]]
name = "app"
count = 3
shares = 3000
affinity = "0-1,3"
quota = {run = "10ms"}
slice = "2.5 ms"
[vm.workload]
kind = "on_off"
work = "3ms"
wait = "1 ms"
work_is = "fixed"

[[vm]]
name = "pinned"
vcpus = 4
shares = 400
affinity = [1, 2]
pin = true
workload = {kind = "periodic", work = "1ms", period = "10ms", start = "0 ns"}
"""


def test_all_of_it():
    scenario = Scenario.parse(TEXT, "folder/name.toml")
    assert (scenario.name, scenario.cpus, scenario.seed) == ("name", 4, 7)
    assert (scenario.duration_ns, scenario.interval_ns) == (2000 * MS, 500 * MS)
    assert (scenario.policy, scenario.options) == ("eevdf", {"linux_tick_ns": 4 * MS})
    app = ScenarioVM(
        "app-1",
        shares=3000,
        workload=OnOff(3 * MS, MS, work="fixed"),
        affinity=((0, 1, 3),),
        quota=(10 * MS, 100 * MS),
        slice_ns=2_500_000,
    )
    assert scenario.vms[0] == ScenarioVM("web", 2, 4000, Poisson(2 * MS, 20 * MS))
    assert scenario.vms[1] == app
    assert [vm.name for vm in scenario.vms[1:4]] == ["app-1", "app-2", "app-3"]
    assert scenario.vms[4] == ScenarioVM(
        "pinned", 4, 400, Periodic(MS, 10 * MS), affinity=((1,), (2,), (1,), (2,))
    )
    assert list(scenario.world_names().values()) == [
        *("web/0", "web/1", "app-1", "app-2", "app-3"),
        *("pinned/0", "pinned/1", "pinned/2", "pinned/3"),
    ]


def test_it_runs_as_the_same_calls_do():
    run = Scenario.parse(TEXT).run()
    host = Scheduler(4, policy="eevdf", quantum_ns=MS, linux_tick_ns=4 * MS, rng=7)
    for _ in range(2):
        host.add(Poisson(2 * MS, 20 * MS), weight=2000)
    for _ in range(3):
        host.add(
            OnOff(3 * MS, MS, work="fixed"),
            weight=3000,
            slice_ns=2_500_000,
            affinity=[0, 1, 3],
            limit=(10 * MS, 100 * MS),
        )
    pinned = [host.add(Periodic(MS, 10 * MS), weight=100, affinity=[1, 2]) for _ in range(4)]
    for i, world in enumerate(pinned):
        host.set_affinity(world, [1 + i % 2])
    host.run(2000 * MS)
    rows, wanted = run.host.counters(), host.counters()
    assert rows["vm"].tolist() == [0, 0, 1, 2, 3, 4, 4, 4, 4]
    for name in (name for name in wanted.dtype.names or () if name != "vm"):
        assert rows[name].tolist() == wanted[name].tolist(), name
    assert run.groups == {
        "web": (0, 1), "app-1": (2,), "app-2": (3,), "app-3": (4,), "pinned": (5, 6, 7, 8)
    }  # fmt: skip
    assert run.series.times_ns.tolist() == [0, 500 * MS, 1000 * MS, 1500 * MS, 2000 * MS]
    assert run.series.groups == run.groups


HYPERV = """
cpus = 2
duration = "1s"
policy = {name = "hyperv", scheduler = "classic"}
[[vm]]
name = "sql"
vcpus = 2
reserve = 60
[[vm]]
name = "web"
count = 3
reserve = 25
"""


def test_hyperv_reserves_are_admitted():
    """In percent of a CPU, and the VM that is too much is named."""
    with pytest.raises(AdmissionError) as caught:
        Scenario.parse(HYPERV.replace("= 25", "= 30"))
    error = caught.value
    assert (error.needed, error.available, error.client) == (30, 20, "host/web-3")
    fits = Scenario.parse(HYPERV)
    run = fits.run()
    assert run.host.counters()["run"].sum() == 2 * 10**9
    # what was not read from a file is checked when it is built
    more = replace(fits, vms=(*fits.vms, replace(fits.vms[0], name="more")))
    with pytest.raises(AdmissionError, match="needs 120 and has 5: 115 is missing, for 'more'"):
        more.build()
    unchecked = HYPERV.replace('"classic"', '"classic", admission = false').replace("= 25", "= 80")
    assert Scenario.parse(unchecked).run().host.cpu_counters()["idle"].sum() == 0
    with pytest.raises(InvalidValueError, match="VM 'sql': reserve must be at most the maximum"):
        Scenario.parse(HYPERV.replace("reserve = 60", "reserve = 60\nmaximum = 50")).run()


@pytest.mark.parametrize("policy", sorted(WEIGHTS_ONLY))
def test_reservations_are_for_policies_that_keep_them(policy):
    """The others are those whose VMs get the same whatever is reserved."""
    text = f'cpus = 1\nduration = "1s"\npolicy = "{policy}"\n[[vm]]\nname = "a"\n'
    for key in ("reservation", "limit"):
        known = PLUGS[policy]().vm_params if policy in PLUGS else {}
        with pytest.raises(InvalidValueError, match=f"{policy} knows of no {key}") as caught:
            Scenario.parse(f'{text}{key} = "20%"')
        assert all(name.removesuffix("_ns") in str(caught.value) for name in known)
    runs = []
    for given in ({}, {"reservation": 8 * 10**8, "limit": 9 * 10**8}):
        host = Scheduler(policy=policy)
        for each in ({}, given, {}):
            host.add_vm(1, **each)
        host.run(10**9)
        runs.append(host.counters().tobytes())
    assert runs[0] == runs[1]
    assert set(PLUGS) - WEIGHTS_ONLY <= {"esx", "declared"}


def test_another_policy():
    scenario = Scenario.parse(TEXT)
    assert scenario.run("rr").host.policy == "rr"
    assert (
        scenario.run("eevdf").host.counters().tobytes() == scenario.run().host.counters().tobytes()
    )
    with pytest.raises(InvalidValueError, match=r"got 'strid'; did you mean 'stride'\?"):
        scenario.run("strid")


PLUGGED = """
cpus = 2
duration = "1s"
policy = {name = "declared", pace = "3ms", careful = true, ratio = 0.5, mode = "b", depth = 3}
[[vm]]
name = "a"
vcpus = 2
reservation = "50%"
limit = "150 %"
cap = 40
budget = "4ms"
[[vm]]
name = "b"
"""


class Declared(PythonPolicy):
    """Lowest number first."""

    vm_params: ClassVar = {
        "cap": (0, 0, 100), "budget_ns": (MS, 1, 1 << 40), "pool": (0, 0, 99)
    }  # fmt: skip
    seen: ClassVar[list] = []

    def begin(self):
        self.line = []

    def enqueue(self, id, why):
        self.line.append(id)
        self.seen.append((id, self.vm(self.world(id).vm)))
        for cpu in range(self.cpu_count):
            if self.running(cpu) is None:
                self.ask(cpu)

    def dequeue(self, id):
        self.line.remove(id)

    def pick(self, cpu):
        self.line.sort()
        return self.line.pop(0) if self.line else None


def declared(pace_ns=MS, careful=False, ratio=1.0, mode="a", depth=1, pools=None):
    """The policy, as its name in the table makes it."""
    if mode not in ("a", "b"):
        raise InvalidValueError(f"mode must be a or b, got {mode!r}")
    MADE.append((pace_ns, careful, ratio, mode, depth, pools))
    return Declared()


MADE: list[tuple] = []


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLUGS, "declared", declared)
    MADE.clear()
    Declared.seen.clear()


def test_plug_in_policies(plugged: None):
    scenario = Scenario.parse(PLUGGED, "p.toml")
    assert scenario.options == {
        "pace_ns": 3 * MS, "careful": True, "ratio": 0.5, "mode": "b", "depth": 3
    }  # fmt: skip
    assert scenario.vms[0] == ScenarioVM(
        "a",
        2,
        2000,
        reservation=500_000_000,
        limit=1_500_000_000,
        params={"cap": 40, "budget_ns": 4 * MS},
    )
    run = scenario.run()
    assert run.host.policy == "Declared"
    assert MADE[-1] == (MS, False, 1.0, "a", 1, None)  # to ask for its parameters
    assert (3 * MS, True, 0.5, "b", 3, None) in MADE
    by_world = dict(Declared.seen)
    for world in run.groups["a"]:
        assert by_world[world][:4] == (2000, 500_000_000, 1_500_000_000, (40, 4 * MS, 0))
    assert by_world[2][:4] == (1000, 0, None, (0, MS, 0))
    assert run.host.counters()["run"].tolist() == [1000 * MS, 1000 * MS, 0]
    # an inlined policy has no use for all that, but can be compared
    assert scenario.run("stride").host.counters()["run"].sum() == 2000 * MS


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"3ms"', "3", "p.toml:4: policy.pace must be a time with its unit"),
        ("true", "1", "p.toml:4: policy.careful must be true or false, got 1"),
        ("0.5", '"half"', "p.toml:4: policy.ratio must be a number, got 'half'"),
        ('"b"', '"c"', "p.toml:4: policy: mode must be a or b, got 'c'"),
        ("depth = 3", "depths = 3", "p.toml:4: policy.depths: the policy declared has no 'depths'"),
        (
            "cap = 40",
            "cap = 101",
            r"p.toml:10: vm\[0\].cap must be an integer from 0 to 100",
        ),
        ("cap = 40", "cup = 40", r"p.toml:10: vm\[0\].cup: a VM has no 'cup'; did you mean 'cap'"),
        ('"4ms"', '"0ms"', r"p.toml:11: vm\[0\].budget must be at least 1 ns"),
        ('"50%"', '"50"', r"p.toml:8: vm\[0\].reservation must be a part of CPUs .*got '50'"),
        ('"150 %"', "150", r"p.toml:9: vm\[0\].limit must be text, got 150"),
    ],
)
def test_what_is_wrong_with_them(plugged: None, old: str, new: str, message: str):
    assert old in PLUGGED
    with pytest.raises(InvalidValueError, match=message):
        Scenario.parse(PLUGGED.replace(old, new, 1), "p.toml")


SHAPE = """
duration = "1s"
[topology]
sockets = 2
cores = 2
threads = 2
smt = [1.25]
migration = ["1us", "2us", "2us", "3us", "5us"]
[[vm]]
name = "a"
vcpus = 3
affinity = "4-7"
"""


def test_topology():
    scenario = Scenario.parse(SHAPE)
    assert scenario.cpus == 8
    wanted = Topology(
        sockets=2, cores=2, threads=2, smt=[1.25], migration_ns=[1000, 2000, 2000, 3000, 5000]
    )
    assert scenario.topology is not None
    assert scenario.topology.socket == wanted.socket
    assert scenario.topology.migration_ns == wanted.migration_ns
    run = scenario.run()
    rows = run.host.counters()
    assert rows["run"].tolist() == [1000 * MS] * 3
    # one has a core of its own, two share one
    assert sorted(rows["used"].tolist()) == [625 * MS, 625 * MS, 1000 * MS]
    used = run.series.percent("%USED")
    assert sorted(used[0].tolist()) == [62.5, 62.5, 100]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sockets = 2", "sockets = 0", "t:4: topology.sockets must be an integer from 1 to 1,024"),
        ("cores = 2", "core = 2", "t:5: topology.core: a topology has no 'core'; did you mean"),
        ("[1.25]", '"much"', "t:7: topology.smt must be a number, or a list of numbers"),
        ("[1.25]", "2.5", "t:3: topology: .*smt"),
        ('"5us"]', "5]", "t:8: topology.migration: each time must be a time with its unit"),
        ('"3us", "5us"]', '"3us"]', "t:3: topology: migration_ns"),
        ('duration = "1s"', 'duration = "1s"\ncpus = 4', "t:3: cpus must be the 8 of the topology"),
        ('"4-7"', '"4-8"', r"t:12: vm\[0\].affinity must be numbers of CPUs from 0 to 7"),
        ("cores = 2", "cores = 600", "t:3: topology: 2 sockets of 600 cores of 2 threads"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_topology(old: str, new: str, message: str):
    assert old in SHAPE
    with pytest.raises(InvalidValueError, match=message):
        Scenario.parse(SHAPE.replace(old, new, 1), "t")


def test_the_least():
    scenario = Scenario.parse('cpus = 1\nduration = "1s"\n[[vm]]\nname = "a"')
    assert scenario.vms == (ScenarioVM("a"),)
    assert scenario.policy == "stride"
    run = scenario.run()
    assert run.host.counters()["run"].tolist() == [1000 * MS]
    assert len(run.series.times_ns) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cpus = 4", "cpus = 0", "s.toml:1: cpus must be an integer from 1 to 1,024, got 0"),
        ("cpus = 4", "cpus = true", "s.toml:1: cpus must be an integer .* got True"),
        ("cpus = 4", "", "s.toml lacks 'cpus', the number of CPUs"),
        ("cpus = 4", "cpu = 4", "s.toml lacks 'cpus', the number of CPUs; it has 'cpu'"),
        ("cpus = 4", "cpus = [4", "s.toml: Unclosed array"),
        ('"2s"', "2", "s.toml:2: duration must be a time with its unit, .*got 2"),
        ('"2s"', '"2 parsecs"', "s.toml:2: duration must be .*got '2 parsecs'"),
        ('"2s"', '"0s"', "s.toml:2: duration must be at least 1 ns, got '0s'"),
        ('"500ms"', '"1ns"', "s.toml:3: interval must be at least a millionth"),
        ("interval", "intervall", "s.toml:3: intervall: a scenario has no 'intervall'; did"),
        ("seed = 7", "seed = -1", "s.toml:4: seed must be an integer from 0 to"),
        ('"eevdf"', '"evdf"', "s.toml:8: policy.name must be one of .*; did you mean 'eevdf'"),
        ("linux_tick", "tick", "s.toml:9: policy.tick: the policy eevdf has no 'tick'; it has"),
        ('name = "eevdf"', "", "s.toml:7: policy lacks 'name', the policy's name"),
        ('"web"', "3", r"s.toml:12: vm\[0\].name must be text, got 3"),
        ('name = "web"', "", r"s.toml:11: vm\[0\] lacks 'name'"),
        ('"web"', '"app-2"', r"s.toml:18: vm\[1\].name must be a name that no other VM has"),
        ('"high"', '"hihg"', r"s.toml:14: vm\[0\].shares must be one of low, .*mean 'high'"),
        ('"high"', "0", r"s.toml:14: vm\[0\].shares must be low, normal, high or an int"),
        ('slice = "2.5 ms"', 'limit = "5 %"', r"s.toml:23: vm\[1\].limit: the policy eevdf knows"),
        ("shares = 3000", "shares = 2.5", r"s.toml:20: vm\[1\].shares must be .*got 2.5"),
        ("gap = ", "gaps = ", r"s.toml:15: vm\[0\].workload lacks 'gap', a time; it has 'gaps'"),
        ('"poisson"', '"poison"', r"s.toml:15: vm\[0\].workload.kind must be .*mean 'poisson'"),
        ('gap = "20ms"', 'gap = "0ms"', r"s.toml:15: vm\[0\].workload.gap must be at least 1 ns"),
        ("count = 3", "count = 0", r"s.toml:19: vm\[1\].count must be an integer from 1 to"),
        ("0-1,3", "0-4", r's.toml:21: vm\[1\].affinity must be numbers of CPUs from 0 to 3, .*0-4'),
        ("0-1,3", "3-1", r"s.toml:21: vm\[1\].affinity must be .*got '3-1'"),
        ("0-1,3", "", r"s.toml:21: vm\[1\].affinity must be .*got ''"),
        ("[1, 2]", "[1.5]", r"s.toml:34: vm\[2\].affinity must be .*got \[1.5\]"),
        ("[1, 2]", "[]", r"s.toml:34: vm\[2\].affinity must be"),
        ("[1, 2]", "1", r"s.toml:34: vm\[2\].affinity must be .*got 1"),
        ("{run", "{runs", r"s.toml:22: vm\[1\].quota lacks 'run', CPU time in a period; it has 'r"),
        ('{run = "10ms"}', '"10ms"', r"s.toml:22: vm\[1\].quota must be a table, got '10ms'"),
        ('"fixed"', '"fix"', r"s.toml:28: vm\[1\].workload.work_is must be .*mean 'fixed'"),
        ('wait = "1 ms"', "", r"s.toml:24: vm\[1\].workload lacks 'wait', a time"),
        ("pin = true", "pin = 1", r"s.toml:35: vm\[2\].pin must be true or false, got 1"),
        ("vcpus = 4", "vcpus = 4\npins = true", r"s.toml:33: vm\[2\].pins: a VM has no 'pins'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(old: str, new: str, message: str):
    assert old in TEXT
    with pytest.raises(InvalidValueError, match=message) as caught:
        Scenario.parse(TEXT.replace(old, new, 1), "s.toml")
    assert "\n" not in str(caught.value)


def test_no_machines():
    for text in ("", "vm = []", "vm = 3", "[vm]"):
        with pytest.raises(InvalidValueError, match=r"lacks 'vm', one|vm must be|one \[\[vm\]\]"):
            Scenario.parse(f'cpus = 1\nduration = "1s"\n{text}')
    with pytest.raises(InvalidValueError, match="at most 1,048,576 vCPUs"):
        Scenario.parse('cpus = 1\nduration = "1s"\n[[vm]]\nname = "a"\nvcpus = 1000000\ncount = 2')


POOLS = """
cpus = 4
duration = "100ms"
policy = "declared"
[[pool]]
name = "inner"
parent = "outer"
shares = 700
limit = "150%"
[[pool]]
name = "outer"
reservation = "200%"
[[pool]]
name = "other"
shares = "low"
reservation = "50%"
expandable = false
[[vm]]
name = "a"
pool = "inner"
reservation = "100%"
[[vm]]
name = "b"
pool = "other"
reservation = "50%"
[[vm]]
name = "c"
reservation = "100%"
"""


def test_pools(plugged: None):
    scenario = Scenario.parse(POOLS)
    assert [pool.name for pool in scenario.pools] == ["outer", "other", "inner"]
    assert scenario.pools[2] == ScenarioPool("inner", "outer", 700, 0, 1_500_000_000)
    run = scenario.run()
    second = 1_000_000_000
    assert [made[-1] for made in MADE if made[-1]] == [
        [
            (0, 1.0, 0, -1),
            (0, 4000.0, 2 * second, -1),
            (0, 2000.0, second // 2, -1),
            (1, 700.0, 0, 1_500_000_000),
        ]
    ]
    by_world = dict(Declared.seen)
    assert [by_world[run.groups[vm][0]].params[2] for vm in "abc"] == [3, 2, 0]
    # what another policy does with it: it knows of no pools
    assert len(scenario.run("stride").series.groups) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"declared"', '"stride"', r"m:5: pool: the policy stride knows of no pools"),
        ('parent = "outer"', 'parent = "outre"', r"m:7: pool\[0\].parent .*did you mean 'outer'"),
        ('name = "outer"', 'name = "outer"\nparent = "inner"', r"pool\[[01]\].parent must be a"),
        ('name = "other"', 'name = "inner"', r"m:14: pool\[2\].name must be a name that no other"),
        ("shares = 700", "shares = 0", r"m:8: pool\[0\].shares must be an integer from 1 to"),
        ("shares = 700", "weight = 700", r"m:8: pool\[0\].weight: a pool has no 'weight'; it has"),
        ('"150%"', '"150"', r"m:9: pool\[0\].limit must be a part of CPUs as percent"),
        ('pool = "inner"', 'pool = "iner"', r"m:20: vm\[0\].pool must be one of .*mean 'inner'"),
        ('"50%"\nexp', '"50%"\nlimit = "20%"\nexp', r"m:17: pool\[2\].limit must be at least the"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_pools(plugged: None, old: str, new: str, message: str):
    assert old in POOLS
    with pytest.raises(InvalidValueError, match=message):
        Scenario.parse(POOLS.replace(old, new, 1), "m")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"150%"', '"50%"', "'host/outer/inner' needs 100 and has 50: 50 is missing, for '.*/a'"),
        ('reservation = "200%"', 'reservation = "301%"', "needs 100 and has 49: 51 is missing"),
        ('"b"', '"b"\ncount = 2', "'host/other' needs 50 and has 0: 50 is missing, for '.*b-2'"),
    ],
)  # fmt: skip
def test_reservations_that_cannot_be_met(plugged: None, old: str, new: str, message: str):
    with pytest.raises(AdmissionError, match=message):
        Scenario.parse(POOLS.replace(old, new, 1), "m")


@dataclass(frozen=True)
class Even:
    low_ns: int
    high_ns: int


@dataclass(frozen=True)
class MadeUp:
    """A workload with attributes of all kinds."""

    work_ns: int | Even
    times_ns: npt.ArrayLike
    cpus: npt.ArrayLike
    rounds: int
    rate: float = 1.0
    lock: Literal["ticket", "free"] = "ticket"
    spin_ns: int | None = None
    repeat: bool = False
    parts: npt.NDArray[np.int64] | None = None

    def __post_init__(self):
        if self.rounds > 9:
            raise InvalidValueError(f"rounds must be at most 9, got {self.rounds}")


MADE_UP = """
cpus = 1
duration = "1s"
[[vm]]
name = "a"
[vm.workload]
kind = "made_up"
work = {kind = "even", low = "1ms", high = "3ms"}
times = ["0s", "1s", "2min"]
cpus = [0.5, 1]
rounds = 3
lock = "free"
spin = "0ns"
repeat = true
"""


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_fields, "kinds", lambda: {"made_up": MadeUp})


def test_workloads_are_read_by_their_types(made_up: None):
    (vm,) = Scenario.parse(MADE_UP).vms
    assert vm.workload == MadeUp(
        Even(MS, 3 * MS), [0, 1000 * MS, 120_000 * MS], [0.5, 1], 3, 1.0, "free", 0, True
    )
    plain = MADE_UP.replace('{kind = "even", low = "1ms", high = "3ms"}', '"2 ms"')
    assert Scenario.parse(plain).vms[0].workload.work_ns == 2 * MS
    with pytest.raises(InvalidValueError, match="scenario: VM 'a': workload must be"):
        Scenario.parse(plain).build()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"even"', '"odd"', r"m:8: vm\[0\].workload.work.kind must be one of even, got 'odd'"),
        ('"1ms"', "1", r"m:8: vm\[0\].workload.work.low must be a time with its unit"),
        (', high = "3ms"', "", r"m:8: vm\[0\].workload.work lacks 'high', a time"),
        ('"1s", "2', '1, "2', r"m:9: vm\[0\].workload.times: each time must be .*got 1"),
        ('["0s", "1s", "2min"]', '"1s"', r"m:9: vm\[0\].workload.times must be a list of times"),
        ("[0.5, 1]", "[0.5, true]", r"m:10: vm\[0\].workload.cpus must be a list of numbers"),
        ("cpus = [0.5, 1]", "", r"m:6: vm\[0\].workload lacks 'cpus', a list"),
        ("rounds = 3", "", r"m:6: vm\[0\].workload lacks 'rounds', a value"),
        ("rounds = 3", "rounds = 0.5", r"m:11: vm\[0\].workload.rounds must be an integer"),
        ("rounds = 3", "rounds = 10", r"m:6: vm\[0\].workload: rounds must be at most 9, got 10"),
        ('"free"', '"tickets"', r"m:12: vm\[0\].workload.lock must be one of ticket, free, got"),
        ("repeat = true", "repeat = 1", r"m:14: vm\[0\].workload.repeat must be true or false"),
        ("repeat", "parts", r"m:14: vm\[0\].workload.parts: the workload made_up has no 'parts'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_workload(made_up: None, old: str, new: str, message: str):
    assert old in MADE_UP
    place = MADE_UP.index("[vm.workload]")
    text = MADE_UP[:place] + MADE_UP[place:].replace(old, new, 1)
    with pytest.raises(InvalidValueError, match=message):
        Scenario.parse(text, "m")


def test_files(tmp_path: Path):
    path = tmp_path / "my.toml"
    path.write_text(TEXT)
    assert Scenario.load(path) == Scenario.parse(TEXT, "my.toml")
    path.write_bytes(b"\xff")
    with pytest.raises(PyvirtError, match=r"my\.toml: 'utf-8' codec"):
        Scenario.load(path)
    with pytest.raises(OSError, match="No such file"):
        Scenario.load(tmp_path / "other.toml")


def test_lines_of_keys():
    text = '''\
a = 1
"b c" = """
[not.a.table]
x = 1
"""
[t.u]  # comment
k = [
  1, # ]
  {deep = 2},
]
after.all = 3
[[list]]
x = 1
[list.sub]
y = 2
[[list]]
'z' = '[[no]]'
[[list.inner]]
q = 1
[[list.inner]]
q = 2
'''
    assert key_lines(text) == {
        ("a",): 1,
        ("b c",): 2,
        ("t", "u"): 6,
        ("t", "u", "k"): 7,
        ("t", "u", "after"): 11,
        ("t", "u", "after", "all"): 11,
        ("list",): 12,
        ("list", 0): 12,
        ("list", 0, "x"): 13,
        ("list", 0, "sub"): 14,
        ("list", 0, "sub", "y"): 15,
        ("list", 1): 16,
        ("list", 1, "z"): 17,
        ("list", 1, "inner"): 18,
        ("list", 1, "inner", 0): 18,
        ("list", 1, "inner", 0, "q"): 19,
        ("list", 1, "inner", 1): 20,
        ("list", 1, "inner", 1, "q"): 21,
    }
