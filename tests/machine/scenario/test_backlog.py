"""What a machine could not do in time it does later, wherever it is by then."""

import pytest

from pyvirt.machine.scenario import Scenario
from pyvirt.spec import ClusterSpec, EventSpec, HostSpec, ScenarioSpec, VMSpec
from pyvirt.spec.workload import DemandSpec, WorkloadSpec

SECOND = 10**9


@pytest.mark.parametrize("moves", [[], [20], [20, 40], [20, 40, 60, 80]])
def test_all_work_is_done_in_the_end(tmp_path, moves):
    trace = tmp_path / "burst.csv"
    trace.write_text("0,2000\n60,0\n3600,0\n")
    burst = WorkloadSpec(cpu=DemandSpec("trace", file=str(trace), mhz=1))
    always = WorkloadSpec()
    hosts = [HostSpec(name, cpus=1, mhz=2000) for name in ("a", "b")]
    vms = [
        VMSpec("m", host="a", memory="1GiB", workload=burst),
        # the same demand on each host: half of what m wants is there at a time
        VMSpec("x", host="a", workload=always),
        VMSpec("y", host="b", workload=always),
    ]
    events = [EventSpec(at * SECOND, "migrate", "m", "ba"[i % 2]) for i, at in enumerate(moves)]
    spec = ScenarioSpec(
        ClusterSpec(hosts=hosts, vms=vms), 200 * SECOND, step_ns=10 * SECOND, events=events
    )
    result = Scenario(spec).run()
    assert len(result.of("migrated")) == len(moves)
    # a minute of a CPU; what it had begun on when it moved may be done once more: a part of 10 ms
    done = result.vm("m")["run_ns"].sum()
    assert done == pytest.approx(60 * SECOND, abs=len(moves) * 0.02 * SECOND + 10)
