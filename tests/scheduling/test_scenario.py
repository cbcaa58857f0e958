"""Scenario files: what they mean, and what is told about what they cannot mean."""

from pathlib import Path

import pytest

from pyvirt.errors import InvalidValueError, PyvirtError
from pyvirt.sched import OnOff, Periodic, Poisson, Scenario, ScenarioVM, Scheduler
from pyvirt.sched.fields import key_lines

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
limit = {quota = "10ms"}
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
        weight=3000,
        workload=OnOff(3 * MS, MS, work="fixed"),
        affinity=((0, 1, 3),),
        limit=(10 * MS, 100 * MS),
        slice_ns=2_500_000,
    )
    assert scenario.vms[0] == ScenarioVM("web", 2, 2000, Poisson(2 * MS, 20 * MS))
    assert scenario.vms[1] == app
    assert [vm.name for vm in scenario.vms[1:4]] == ["app-1", "app-2", "app-3"]
    assert scenario.vms[4] == ScenarioVM(
        "pinned", 4, 100, Periodic(MS, 10 * MS), affinity=((1,), (2,), (1,), (2,))
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
    for i in range(4):
        host.add(Periodic(MS, 10 * MS), weight=100, affinity=[1 + i % 2])
    host.run(2000 * MS)
    assert run.host.counters().tobytes() == host.counters().tobytes()
    assert run.groups == {
        "web": (0, 1), "app-1": (2,), "app-2": (3,), "app-3": (4,), "pinned": (5, 6, 7, 8)
    }  # fmt: skip
    assert run.series.times_ns.tolist() == [0, 500 * MS, 1000 * MS, 1500 * MS, 2000 * MS]
    assert run.series.groups == run.groups


def test_another_policy():
    scenario = Scenario.parse(TEXT)
    assert scenario.run("rr").host.policy == "rr"
    assert (
        scenario.run("eevdf").host.counters().tobytes() == scenario.run().host.counters().tobytes()
    )
    with pytest.raises(InvalidValueError, match=r"got 'strid'; did you mean 'stride'\?"):
        scenario.run("strid")


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
        ('"high"', "3", r"s.toml:14: vm\[0\].shares must be a multiple of its 2 vCPUs.*got 3"),
        ('"high"', "1", r"s.toml:14: vm\[0\].shares must be low, normal, high or an int"),
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
        ("quota", "quotas", r"s.toml:22: vm\[1\].limit lacks 'quota', CPU time in a per"),
        ('{quota = "10ms"}', '"10ms"', r"s.toml:22: vm\[1\].limit must be a table, got '10ms'"),
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
        ("list", 0): 12,
        ("list", 0, "x"): 13,
        ("list", 0, "sub"): 14,
        ("list", 0, "sub", "y"): 15,
        ("list", 1): 16,
        ("list", 1, "z"): 17,
        ("list", 1, "inner", 0): 18,
        ("list", 1, "inner", 0, "q"): 19,
        ("list", 1, "inner", 1): 20,
        ("list", 1, "inner", 1, "q"): 21,
    }
