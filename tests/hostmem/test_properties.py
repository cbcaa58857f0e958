"""What holds for all hosts and VMs at all times: pages add up, and threads change nothing."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostmem.machine import change, random_hosts
from pyvirt.errors import AdmissionError
from pyvirt.hostmem import MemoryState

POLICIES = st.sampled_from(["esx6", "esx2002"])
STEPS = st.lists(st.integers(1, 300 * 10**9), min_size=1, max_size=12)


def state_of(memory):
    return {
        "vms": {name: column.tolist() for name, column in memory.vms.copy().items()},
        "hosts": {name: column.tolist() for name, column in memory.hosts.copy().items()},
        "scanned": memory._scanned.tolist(),
        "now": memory.now_ns,
    }


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), POLICIES, STEPS)
def test_pages_add_up(seed, policy, steps):
    memory = random_hosts(seed, policy)
    rng = np.random.default_rng(seed)
    memory.check()
    for dt in steps:
        change(memory, rng)
        before = memory.vms.copy()
        memory.step(dt)
        memory.check()
        vms = memory.vms
        for name in ("swap_out", "swap_in", "zip", "unzip", "balloon_in", "balloon_out", "broken"):
            assert (vms[name] >= before[name]).all()
        # the counts tell the same story as the places of pages
        assert (vms.ballooned == vms.balloon_in - vms.balloon_out).all()
        assert (vms.zipped <= vms.zip - vms.unzip).all()
        assert (vms.swapped <= vms.swap_out - vms.swap_in + vms.double_paged).all()
        most = (vms.memory * float(memory.policy.cache_part)).astype(int) * 2
        assert (vms.zipped <= most).all()
        waited = vms.swap_wait_ns - before["swap_wait_ns"]
        assert (waited >= 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), POLICIES, st.lists(st.integers(0, 2), min_size=1, max_size=15))
def test_moves_lose_no_page(seed, policy, hosts):
    memory = random_hosts(seed, policy)
    rng = np.random.default_rng(seed)
    for host in hosts:
        change(memory, rng)
        memory.step(10**10)
        name = memory.names[int(rng.integers(len(memory)))]
        vm = memory.vm(name)
        before, at = {key: getattr(vm, key) for key in memory.vms}, vm.host
        try:
            memory.move(name, host)
        except AdmissionError:
            assert {key: getattr(vm, key) for key in memory.vms} == before
            assert vm.host == at
            continue
        memory.check()
        assert vm.host == host
        swapped = vm.swapped - before["swapped"]
        assert vm.mapped == before["mapped"] - swapped
        assert swapped >= 0
        kept = ("memory", "untouched", "ballooned", "zipped", "estimate", "key", "swap_in")
        assert all(getattr(vm, key) == before[key] for key in kept)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), POLICIES, st.integers(2, 5))
def test_threads_change_nothing(seed, policy, threads):
    one, many = (random_hosts(seed, policy, hosts=7, vms=30) for _ in range(2))
    draws = [np.random.default_rng(seed) for _ in range(2)]
    for _ in range(4):
        change(one, draws[0])
        change(many, draws[1])
        one.step(10**10)
        many.step(10**10, threads=threads)
    assert state_of(one) == state_of(many)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), POLICIES)
def test_copies_go_on_alike(seed, policy):
    memory = random_hosts(seed, policy)
    change(memory, np.random.default_rng(seed))
    memory.step(10**10)
    twins = [memory.copy(), pickle.loads(pickle.dumps(memory))]
    for _ in range(3):
        memory.step(10**10)
        for twin in twins:
            twin.step(10**10)
    assert state_of(memory) == state_of(twins[0]) == state_of(twins[1])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), POLICIES)
def test_a_host_does_not_know_of_others(seed, policy):
    """Taking all VMs off the other hosts changes nothing for those that stay."""
    memory = random_hosts(seed, policy)
    change(memory, np.random.default_rng(seed))
    alone = memory.copy()
    stay = set(memory.names[memory.first[1] : memory.first[2]])
    alone.remove([name for name in alone.names if name not in stay])
    for _ in range(4):
        memory.step(10**10)
        alone.step(10**10)
    rows = [memory.row(name) for name in alone.names]
    for name in memory.vms:
        assert memory.vms[name][rows].tolist() == alone.vms[name].tolist(), name


@pytest.mark.parametrize("policy", ["esx6", "esx2002"])
def test_all_states_and_all_means_occur(policy):
    """The random hosts above are worth something."""
    seen, totals = set(), dict.fromkeys(("swap_out", "swap_in", "balloon_in", "balloon_out"), 0)
    totals |= {"zip": 0, "unzip": 0, "broken": 0, "unshared": 0, "double_paged": 0}
    for seed in range(40):
        memory = random_hosts(seed, policy)
        rng = np.random.default_rng(seed)
        for _ in range(12):
            change(memory, rng)
            memory.step(10**10)
            seen |= set(memory.states())
        for name in totals:
            totals[name] += int(memory.vms[name].sum())
    expected = set(MemoryState) - ({MemoryState.CLEAR} if policy == "esx2002" else set())
    assert seen == expected
    unused = {"zip", "unzip"} if policy == "esx2002" else set()
    assert {name for name, total in totals.items() if total == 0} == unused
