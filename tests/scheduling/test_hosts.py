"""Many hosts in threads: the same as one after the other."""

import time

import numpy as np
import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.sched import POLICIES, OnOff, Poisson, Scheduler, run_hosts

MS = 1_000_000


def cluster(hosts: int, worlds: int, cpus: int = 4) -> list[Scheduler]:
    """Hosts of several policies, each with worlds of several kinds."""
    names = sorted(POLICIES)
    made = []
    for i in range(hosts):
        host = Scheduler(cpus, policy=names[i % len(names)], quantum_ns=MS, rng=i)
        for k in range(worlds):
            if k % 4 == 1:
                host.add(OnOff(2 * MS, 3 * MS), weight=1 + k % 7)
            elif k % 4 == 2:
                host.add(Poisson(MS, 9 * MS), weight=1 + k % 5)
            else:
                host.add(weight=1 + k % 9, limit=(MS, 5 * MS) if k % 8 == 3 else None)
        made.append(host)
    return made


def facts(host: Scheduler) -> list:
    tables = (host.counters(), host.cpu_counters(), host.latency_counts(), host.virtual_times())
    return [host.now_ns, host.events, *(t.tobytes() for t in tables)]


@pytest.mark.parametrize("threads", [1, 2, 3, 16, None])
def test_threads_change_nothing(threads: int | None):
    serial, threaded = cluster(30, 40), cluster(30, 40)
    events = [host.run(100 * MS) for host in serial]
    assert run_hosts(threaded, 100 * MS, threads=threads).tolist() == events
    assert [facts(host) for host in threaded] == [facts(host) for host in serial]
    # on from there, in steps
    for end in (123 * MS, 150 * MS):
        run_hosts(iter(threaded), end, threads=threads)
    for host in serial:
        host.run(150 * MS)
    assert [facts(host) for host in threaded] == [facts(host) for host in serial]


@pytest.mark.slow
def test_a_million_worlds():
    """On 1,000 hosts; prints what it takes."""
    serial, threaded = cluster(1000, 1000, 16), cluster(1000, 1000, 16)
    room = sum(host.nbytes for host in threaded)
    assert sum(len(host.counters()) for host in threaded) == 10**6
    start = time.perf_counter()
    events = run_hosts(serial, 200 * MS, threads=1)
    middle = time.perf_counter()
    assert (run_hosts(threaded, 200 * MS, threads=4) == events).all()
    end = time.perf_counter()
    assert [facts(host) for host in threaded] == [facts(host) for host in serial]
    print(
        f"\n{room / 1e6:.0f} bytes a world, {events.sum():,} events: "
        f"serial {middle - start:.2f} s, 4 threads {end - middle:.2f} s"
    )


def test_no_hosts():
    events = run_hosts([], 10)
    assert events.shape == (0,)
    assert events.dtype == np.int64


def test_what_is_refused():
    hosts = cluster(2, 3)
    with pytest.raises(InvalidTypeError, match=r"hosts\[2\] must be a Scheduler, got None"):
        run_hosts([*hosts, None], MS)
    with pytest.raises(InvalidValueError, match="more than once"):
        run_hosts([*hosts, hosts[0]], MS)
    with pytest.raises(InvalidValueError, match="threads must be at least 1, got 0"):
        run_hosts(hosts, MS, threads=0)
    with pytest.raises(InvalidTypeError, match=r"until_ns must be an integer, got 1\.0"):
        run_hosts(hosts, 1.0)
    assert [host.now_ns for host in hosts] == [0, 0]
    hosts[1].run(MS)
    with pytest.raises(InvalidValueError, match=r"the time of hosts\[1\], 1,000,000, got 5"):
        run_hosts(hosts, 5)
    assert [host.now_ns for host in hosts] == [0, MS]


def test_what_stops_a_host_is_told():
    class Broken(Scheduler):
        def run(self, until_ns: int, *, events: int | None = None) -> int:
            raise ZeroDivisionError("policy")

    hosts = cluster(3, 3)
    hosts.insert(1, Broken())
    with pytest.raises(ZeroDivisionError) as caught:
        run_hosts(hosts, MS, threads=2)
    assert caught.value.__notes__ == ["hosts[1]"]
    assert [host.now_ns for host in hosts] == [MS, 0, MS, MS]
