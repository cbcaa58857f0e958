"""Home nodes in scenario files, and where the memory of virtual machines is."""

from pathlib import Path

import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.report import numa_table, sched_document
from pyvirt.sched import Esx, Numa, PerCpu, Sampler, Scenario, Scheduler, Topology

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "sched_numa.toml"
MS = 1_000_000
TEXT = """
duration = "2105ms"
policy = {name = "esx", quantum = "10ms"}
[topology]
sockets = 2
cores = 4
[numa]
rebalance = "2s"
drain_pages = 256
drain = "10ms"
remote_penalty = 0.25
threshold_percent = 5
prefer_threads = false
[[vm]]
name = "db"
vcpus = 4
[[vm]]
name = "trial"
vcpus = 4
memory_mb = 4096
quota = {run = "5ms"}
[[vm]]
name = "web"
count = 2
memory_mb = 1024
[[vm]]
name = "wide"
vcpus = 6
memory_mb = 3000
[[vm]]
name = "kept"
nodes = [1]
"""


def test_it_runs_as_the_same_calls_do():
    scenario = Scenario.parse(TEXT)
    numa = Numa(2000 * MS, 5, 0.25, 256, 10 * MS)
    assert scenario.numa == numa
    for policy, made in (
        (None, Esx(quantum_ns=10 * MS, numa=numa)),
        ("percpu", PerCpu(numa=numa)),
    ):
        run = scenario.run(policy)
        host = Scheduler(topology=Topology(sockets=2, cores=4), policy=made)
        host.add_vm(4, weight=4000)
        trial = host.add_vm(4, weight=4000, memory_mb=4096)
        for world in trial.worlds:
            host.set_limit(world, (5 * MS, 100 * MS))
        for _ in range(2):
            host.add_vm(1, weight=1000, memory_mb=1024)
        host.add_vm(6, weight=6000, memory_mb=3000)
        host.add_vm(1, weight=1000, affinity=[4, 5, 6, 7])
        host.run(2105 * MS)
        assert run.host.counters().tobytes() == host.counters().tobytes()
        assert run.host.speed_counters().tobytes() == host.speed_counters().tobytes()


def test_a_move_and_memory_that_follows():
    run = Scenario.parse(TEXT).run()
    rows = {row["vm"]: row for row in numa_table(run)}
    assert list(rows) == ["db", "trial", "web-1", "web-2", "wide"]  # one has an affinity
    moved = rows["web-1"]
    assert (moved["NHN"], moved["NMIG"]) == ("1", 1)
    # 256 pages of 262,144 each 10 ms, since 2 s
    assert moved["N%L"] == pytest.approx(100 * 10 / 1024, abs=0.002)
    assert moved["NLMEM"] == pytest.approx(10, abs=0.02)
    assert moved["NRMEM"] + moved["NLMEM"] == 1024
    away = sum(10 * (1024 - i) / 1024 for i in range(10)) + 5 * (1 - 10 / 1024)
    assert moved["mean N%L"] == pytest.approx(100 * (1 - away / 2105), abs=0.002)
    for name, home in (("db", "0"), ("trial", "1"), ("web-2", "1"), ("wide", "0,1")):
        others = [rows[name][column] for column in ("NHN", "NMIG", "N%L", "mean N%L", "NRMEM")]
        assert others == [home, 0, 100.0, 100.0, 0.0]
    assert [rows[name]["NLMEM"] for name in ("db", "trial", "wide")] == [0.0, 4096.0, 3000.0]
    each = {row["vcpu"]: row for row in numa_table(run, by="world")}
    homes = [each[f"wide/{i}"]["NHN"] for i in range(6)]
    assert homes == ["0"] * 3 + ["1"] * 3
    assert {each[f"wide/{i}"]["NLMEM"] for i in range(6)} == {1500.0}
    assert each["web-1/0"]["N%L"] == moved["N%L"]
    document = sched_document(run)
    assert document["numa"]["vms"] == list(rows.values())
    assert document["numa"]["worlds"] == list(each.values())


def test_a_part_that_moves_is_one_migration():
    text = """
    duration = "2050ms"
    policy = {name = "esx", quantum = "10ms"}
    topology = {sockets = 3, cores = 2}
    numa = {drain_pages = 1}
    [[vm]]
    name = "wide"
    vcpus = 4
    memory_mb = 1000
    [[vm]]
    name = "trial"
    vcpus = 2
    quota = {run = "5ms"}
    [[vm]]
    name = "other"
    vcpus = 2
    """
    run = Scenario.parse(text).run()
    worlds = list(run.groups["wide"])
    assert run.host.speed_counters()["home_moves"][worlds].tolist() == [1, 1, 0, 0]
    (row,) = (row for row in numa_table(run) if row["vm"] == "wide")
    assert (row["NHN"], row["NMIG"]) == ("1,2", 1)
    # half of its memory is of the part that moved: 1 page each 10 ms follows
    assert row["N%L"] == pytest.approx(50, abs=0.01)
    assert row["NRMEM"] == pytest.approx(500, abs=0.1)


def test_a_policy_without_homes_can_be_compared():
    run = Scenario.parse(TEXT).run("stride")
    assert numa_table(run).rows == ()
    assert "numa" not in sched_document(run)


def test_the_example_moves_two():
    run = Scenario.load(EXAMPLE).run()
    assert [row["NMIG"] for row in numa_table(run)] == [0, 0, 1, 0, 1, 0, 0]


def test_homes_over_time():
    late = '[[vm]]\nname = "late"\n[vm.workload]\nkind = "periodic"\n'
    late += 'work = "1s"\nperiod = "9s"\nstart = "1500ms"\n'
    text = EXAMPLE.read_text().replace('"7s"', '"7s"\ninterval = "1s"') + late
    run = Scenario.parse(text).run()
    document = sched_document(run)
    vms = document["series"]["vms"]
    assert vms["web-1"]["NHN"] == ["0", *["1"] * 6]  # at two seconds
    assert vms["web-1"]["NMIG"] == [0, 1, 0, 0, 0, 0, 0]
    assert vms["web-3"]["NMIG"] == [0, 0, 0, 1, 0, 0, 0]
    # 1,000 of 4,096 MB a second from then on
    assert vms["web-1"]["N%L"] == pytest.approx(
        [100, 0, *(100 * min(1, i / 4.096) for i in range(1, 6))], abs=0.002
    )
    assert vms["wide"]["NHN"] == ["0,1"] * 7
    assert (vms["late"]["NHN"][0], vms["late"]["N%L"][0]) == ("", None)
    assert (vms["late"]["NHN"][1] in ("0", "1"), vms["late"]["N%L"][1]) == (True, 100)
    assert "NHN" not in vms["kept"]
    for row in numa_table(run):
        mine = vms[row["vm"]]
        assert (sum(mine["NMIG"]), mine["NHN"][-1]) == (row["NMIG"], row["NHN"])
        assert mine["N%L"][-1] == pytest.approx(row["N%L"], abs=1e-5)
    assert Scenario.parse(text).run("stride").series.homes is None


def test_numbers_that_are_given_again_begin_anew():
    host = Scheduler(topology=Topology(sockets=2, cores=4), policy=Esx(numa=Numa(rebalance_ns=MS)))
    crowd = [host.add_vm(1, memory_mb=100) for _ in range(16)]
    for vm in crowd[1::2]:
        host.block(vm.worlds[0])
    sampler = Sampler(host)
    host.run(10 * MS)
    sampler.take()
    moved = host.speed_counters()["home_moves"].nonzero()[0].tolist()
    assert moved
    host.remove(moved[0])
    host.run(11 * MS)
    again = host.add_vm(1).worlds[0]
    assert again == moved[0]
    host.run(12 * MS)
    sampler.take()
    homes = sampler.series().homes
    assert homes.moves[0, moved].tolist() == [1] * len(moved)
    assert homes.moves[1, again] == host.speed_counters()["home_moves"][again]


def test_nodes_are_affinities():
    scenario = Scenario.parse(TEXT.replace("nodes = [1]", 'nodes = "0-1"\npin = true\nvcpus = 9'))
    kept = scenario.vms[-1]
    assert kept.affinity == tuple((i % 8,) for i in range(9))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('{name = "esx", quantum = "10ms"}', '"rr"', "toml:7: numa: the policy rr knows of no"),
        ('{name = "esx", quantum = "10ms"}', '"credit"', "the policy credit knows of no home"),
        ('"10ms"}', '"10ms", numa = 1}', "the policy esx has no 'numa'"),
        ("sockets = 2\n", "", "host.toml:6: numa must be beside a .topology. with 2 to 16 nodes"),
        ("cores = 4", "cores = 1", "of at least 2 cores, 4 in all; it is <Topology sockets=2"),
        ("[topology]\nsockets = 2\ncores = 4", "", r"4 in all; there is none|lacks 'cpus'"),
        ("drain =", "drian =", "host.toml:10: numa.drian: .* did you mean 'drain'"),
        ("= 0.25", "= 1.5", "host.toml:7: numa: remote_penalty must be at least 0"),
        ("= 0.25", '= "x"', "host.toml:11: numa.remote_penalty must be a number"),
        ("_percent = 5", "_percent = 101", "percent must be an integer from 0 to 100"),
        ('"10ms"\nremote', '"61s"\nremote', "toml:10: numa.drain must be a time up to 60 s"),
        ("threads = false", "threads = 0", "numa.prefer_threads must be true or false"),
        ("nodes = [1]", "nodes = [2]", r"nodes must be numbers of NUMA nodes from 0 to 1"),
        ("nodes = [1]", "nodes = [1]\naffinity = [0]", "nodes must be left out beside"),
        ("memory_mb = 3000", "memory_mb = -1", "memory_mb must be an integer"),
    ],
)
def test_refusals(old, new, message):
    assert old in TEXT
    with pytest.raises(InvalidValueError, match=message):
        Scenario.parse(TEXT.replace(old, new, 1), "host.toml")


def test_nodes_need_a_topology():
    text = 'cpus = 4\nduration = "1s"\n[[vm]]\nname = "a"\nnodes = [0]'
    with pytest.raises(InvalidValueError, match="nodes must be in a scenario with a"):
        Scenario.parse(text)


def test_other_things_are_refused():
    with pytest.raises(InvalidTypeError, match="run must be a ScenarioRun"):
        numa_table(None)
    with pytest.raises(InvalidValueError, match="by must be"):
        numa_table(Scenario.parse(TEXT).run(), by="host")
