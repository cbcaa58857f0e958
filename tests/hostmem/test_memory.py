"""What a host does to its VMs: each means of reclaiming, its limits, and bad input."""

import dataclasses

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.errors import AdmissionError, InvalidTypeError, InvalidValueError
from pyvirt.hostmem import Action, Constants, HostMemory, MemoryState, esx6

SECOND = 10**9


def run(memory, seconds, dt=SECOND):
    for _ in range(int(seconds * SECOND) // dt):
        memory.step(dt)
    memory.check()


def grown(memory, vm, used, active=None, seconds=120):
    """Let a VM use more, little by little: a balloon has time to follow."""
    before = vm.used
    for i in range(1, seconds + 1):
        vm.used = before + (used - before) * i // seconds
        vm.active = min(vm.used, vm.used if active is None else active)
        memory.step(SECOND)
    memory.check()


def pressed(policy="esx2002", **inputs):
    """Two VMs of 100,000 pages that use 80,000, on a host that has 130,000 for them."""
    memory = HostMemory(138_298, policy, constants=inputs.pop("constants", None))
    idle = memory.add(0, "idle", memory=100_000, **inputs)
    busy = memory.add(0, "busy", memory=100_000)
    grown(memory, idle, 80_000, active=8_000)
    grown(memory, busy, 80_000, seconds=400)
    run(memory, 300)
    return memory, idle, busy


def test_idle_memory_goes_to_who_touches_it():
    memory, idle, busy = pressed()
    assert busy.mapped == 80_000
    assert idle.ballooned > 0
    assert idle.swap_out == 0
    assert idle.mapped <= 52_000
    assert memory.hosts.free[0] >= 0.04 * memory.hosts.total[0]


def test_without_tools_there_is_no_balloon():
    _, idle, busy = pressed(tools=0)
    assert idle.ballooned == idle.balloon_target == 0
    assert idle.swap_out > 0
    assert busy.mapped == 80_000
    # the host cannot know which pages are idle: active ones are hit, and read back
    assert idle.swap_in > 0
    assert idle.swap_wait_ns > 0


def test_a_balloon_costs_an_idle_machine_no_waits():
    with_tools, without = pressed()[1], pressed(tools=0)[1]
    assert with_tools.swap_wait_ns < without.swap_wait_ns


def test_a_full_balloon_leaves_the_rest_to_swapping():
    _, idle, _ = pressed(balloon_max=5_000)
    assert idle.ballooned == 5_000
    assert idle.swapped > 0


def test_balloons_fill_at_their_rate():
    slow = Constants(balloon_rate=16.0)
    memory, idle, _ = pressed(constants=slow)
    assert 0 < idle.balloon_in <= 16 * memory.now_ns / SECOND


def test_balloons_shrink_when_memory_is_free_again():
    memory, idle, busy = pressed()
    held = idle.ballooned
    busy.active = busy.used = 0  # the guest frees, the host does not see it
    run(memory, 60)
    assert busy.mapped == 80_000
    memory.remove("busy")
    run(memory, 60)
    assert held > 0
    assert idle.ballooned == 0
    assert idle.balloon_out == idle.balloon_in
    assert idle.mapped == 80_000


def test_the_balloon_gets_free_pages_of_the_guest_first():
    memory = HostMemory(100_000, "esx2002")
    vm = memory.add(0, "vm", memory=60_000, limit=40_000)
    vm.used = 39_000
    vm.active = 1_000
    run(memory, 5)
    vm.used = 10_000  # 29,000 pages are free in the guest, but mapped
    vm.limit = 30_000
    run(memory, 60)
    assert vm.mapped == 30_000
    assert (vm.ballooned, vm.untouched) == (9_000, 21_000)
    assert vm.swap_out == vm.double_paged == 0


def test_a_limit_holds_on_an_empty_host():
    memory = HostMemory(1_000_000)
    vm = memory.add(0, memory=100_000, limit=50_000, used=70_000, active=70_000)
    run(memory, 300)
    assert memory.states() == [MemoryState.HIGH]
    assert vm.target == 50_000
    assert vm.mapped + vm.zipped // 2 <= 50_000
    assert vm.ballooned > 0


def test_reservations_are_kept():
    memory = HostMemory(60_000, "esx6")
    safe = memory.add(0, "safe", memory=30_000, reservation=30_000, used=30_000, shares=1)
    run(memory, 5)
    for i in range(4):
        memory.add(0, f"other{i}", memory=30_000, used=30_000, active=30_000, shares=1000)
    run(memory, 200)
    assert safe.target == safe.mapped == 30_000
    assert safe.zip + safe.swap_out + safe.balloon_in == 0
    assert memory.hosts.state[0] > MemoryState.HIGH


def test_double_paging():
    """The host swaps a VM; then its balloon grows into what the guest believes to be there."""
    constants = Constants(swap_rate=1e6)
    memory = HostMemory(40_000, "esx2002", constants=constants)
    vm = memory.add(0, "vm", memory=35_000, used=30_000, tools=0)
    memory.add(0, "other", memory=25_000, used=24_000, active=24_000, shares=10**6)
    run(memory, 60)
    assert vm.swapped > 10_000
    assert vm.double_paged == 0
    vm.tools = 1
    vm.limit = 4_000
    memory.vm("other").limit = 24_000
    run(memory, 60)
    assert vm.double_paged > 0
    assert vm.swap_wait_ns >= vm.double_paged * 5_000_000


def test_pages_are_compressed_before_they_are_swapped():
    memory = HostMemory(40_000, "esx6")
    vm = memory.add(0, memory=60_000, used=60_000, active=6_000, tools=0, compressible=1000)
    run(memory, 60)
    cache = memory.esxtop()["CACHEUSD"][0] * 256
    assert vm.zip > 0
    assert vm.swapped > 0  # more than the cache takes
    assert cache <= 6_000
    assert vm.zipped in (2 * cache, 2 * cache - 1)
    none = HostMemory(40_000, "esx6")
    hard = none.add(0, memory=60_000, used=60_000, active=6_000, tools=0, compressible=0)
    run(none, 60)
    assert hard.zip == 0
    assert hard.swap_wait_ns > vm.swap_wait_ns


def test_low_blocks_who_is_above_its_target():
    constants = Constants(swap_rate=100.0)
    memory = HostMemory(20_000, "esx2002", constants=constants)
    vm = memory.add(0, memory=30_000, used=30_000, active=30_000)
    for _ in range(30):
        stopped = vm.mapped > vm.target and memory.states() == [MemoryState.LOW]
        blocked = vm.blocked_ns
        memory.step(SECOND)
        assert vm.blocked_ns - blocked == (SECOND if stopped else 0)
    assert vm.blocked_ns > 5 * SECOND


def two_alike(policy="esx2002", total=200_000, **inputs):
    memory = HostMemory(total, policy, classes=("os",))
    for name in ("a", "b"):
        memory.add(
            0, name, memory=40_000, used=30_000, active=30_000,
            content={"zero": 1_000, "os": 12_000}, **inputs,
        )  # fmt: skip
    return memory


def test_sharing_takes_one_pass_of_the_scanner():
    memory = two_alike()
    run(memory, 1800, dt=30 * SECOND)
    half = int(memory.hosts.copies[0])
    assert abs(half - 6_000) < 100
    run(memory, 2000, dt=30 * SECOND)
    a = memory.vm("a")
    assert a.shared == 13_000
    # one machine page for all zeros, one for each page of the system
    assert memory.hosts.copies[0] == 12_001
    assert memory.hosts.free[0] == 200_000 - 60_000 + 26_000 - 12_001


def test_writing_needs_pages_of_its_own():
    memory = two_alike()
    run(memory, 4000, dt=30 * SECOND)
    before = int(memory.hosts.free[0])
    assert memory.vm("a").content("os", 10_000) == 10_000
    run(memory, 1)
    assert memory.vm("a").unshared == 2_000
    assert memory.hosts.free[0] == before - 2_000
    assert memory.vm("b").shared == 11_000
    assert memory.esxtop()["COWH"].tolist() == [0, 2_000 / 256]


def test_salts_keep_machines_apart():
    memory = two_alike("esx6")
    run(memory, 4000, dt=30 * SECOND)
    assert memory.vm("a").shared == 1_000  # zeros of its own
    assert memory.hosts.copies[0] == 2
    same = two_alike("esx6", salt=7)
    run(same, 4000, dt=30 * SECOND)
    assert same.hosts.copies[0] == 12_001


def test_large_pages_are_not_shared_until_memory_is_short():
    ample = two_alike("esx6", salt=1, large_pages=1)
    run(ample, 8000, dt=30 * SECOND)
    assert ample.vm("a").large == 29_696
    assert ample.hosts.copies[0] < 1_000
    short = two_alike("esx6", total=120_000, salt=1, large_pages=1)
    run(short, 4000, dt=30 * SECOND)
    assert short.vm("a").broken == 0
    short.add(0, "c", memory=45_000, used=45_000)
    run(short, 8000, dt=30 * SECOND)
    assert 12_000 <= short.vm("a").broken <= 14_000
    assert short.hosts.copies[0] == 12_001


def test_the_last_holder_keeps_its_page():
    memory = two_alike()
    run(memory, 4000, dt=30 * SECOND)
    memory.remove("b")
    a = memory.vm("a")
    assert a.shared == 1_000
    assert memory.hosts.copies[0] == 1
    memory.check()


def test_means_that_a_policy_lacks_are_never_used():
    base = esx6()
    for left_out, counts in (
        (Action.COMPRESS, ("zip",)),
        (Action.SWAP, ("swap_out",)),
        (Action.BALLOON, ("balloon_in",)),
    ):
        actions = tuple(bits & ~left_out for bits in base.actions)
        memory = HostMemory(60_000, dataclasses.replace(base, actions=actions))
        for tools in (0, 1):
            memory.add(0, memory=50_000, used=50_000, active=20_000, tools=tools)
        run(memory, 200)
        assert all(memory.vms[name].sum() == 0 for name in counts)


def test_a_move_takes_pages_along():
    memory = HostMemory([50_000, 30_000, 5_000], "esx2002", classes=("os",))
    for name in "ab":
        memory.add(0, name, memory=20_000, used=20_000, active=4_000, content={"os": 9_000})
    run(memory, 4000, dt=30 * SECOND)
    a = memory.vm("a")
    assert a.shared == 9_000
    memory.move("a", 1)
    memory.check()
    assert (a.host, a.mapped, a.shared, memory.vm("b").shared) == (1, 20_000, 0, 0)
    assert memory.hosts.free.tolist() == [30_000, 10_000, 5_000]
    memory.move("a", 1)
    memory.move("a", 2)
    assert (a.mapped, a.swapped, a.swapped_active) == (5_000, 15_000, 3_000)
    with pytest.raises(InvalidValueError, match="host"):
        memory.move("a", 3)
    with pytest.raises(InvalidValueError, match="no VM"):
        memory.move("c", 0)


def test_a_host_without_machines_lets_time_pass():
    memory = HostMemory([1000, 2000])
    run(memory, 3)
    assert memory.now_ns == 3 * SECOND
    assert memory.hosts.free.tolist() == [1000, 2000]


def test_names_and_columns():
    memory = HostMemory([50_000, 50_000], classes=["os"])
    views = memory.add_many([1, 0, 1], ["x", "y", "z"], memory=[10_000, 20_000, 30_000])
    assert memory.names == ["y", "x", "z"]
    assert [view.host for view in views] == [1, 0, 1]
    assert memory.first.tolist() == [0, 1, 3]
    assert memory.vms.memory.tolist() == [20_000, 10_000, 30_000]
    assert memory.vms.shares.tolist() == [780, 390, 1170]
    views[0].used = 5_000
    assert memory.vms.used.tolist() == [0, 5_000, 0]
    memory.vms.used[2] = 7
    assert memory.vm("z").used == 7
    memory.remove(["y"])
    assert (views[0].host, views[0].used, len(memory)) == (1, 5_000, 2)
    with pytest.raises(InvalidValueError, match="no VM 'y'"):
        _ = views[1].used
    assert memory.add(0, memory=1).name == "vm3"
    assert pv.HostMemory is HostMemory
    assert repr(memory) == "<HostMemory of 2 hosts and 3 VMs, esx6, 0 ns>"
    assert "x" in repr(views[0])


def test_esxtop_has_rates_of_an_interval():
    memory = HostMemory(40_000, "esx2002")
    vm = memory.add(0, memory=60_000, used=60_000, active=6_000, tools=0, overhead=256)
    run(memory, 10)
    mark, out = memory.counters(), vm.swap_out
    run(memory, 10)
    table = memory.esxtop(mark)
    assert table["SWW/s"][0] == pytest.approx((vm.swap_out - out) / 256 / 10)
    assert table["OVHD"][0] == 1
    assert table["MEMSZ"][0] == 60_000 / 256
    assert table["GRANT"][0] == vm.mapped / 256
    assert table["MCTLMAX"][0] == 0
    late = memory.add(0, memory=10)
    assert memory.esxtop(mark)["SWW/s"][memory.row(late.name)] == 0
    with pytest.raises(InvalidTypeError, match="counters"):
        memory.esxtop({"now": 3})


def test_admission():
    memory = HostMemory(10_000, kernel_pages=1_000)
    memory.add(0, memory=8_000, reservation=5_000, overhead=1_000)
    with pytest.raises(AdmissionError) as caught:
        memory.add(0, memory=8_000, reservation=3_000, overhead=1)
    assert (caught.value.needed, caught.value.available) == (3_001, 3_000)
    assert len(memory) == 1
    memory.add(0, memory=8_000, reservation=2_999, overhead=1)
    memory.vms.reservation[:] = 0
    memory.vms.used[:] = 8_000
    run(memory, 5)
    with pytest.raises(AdmissionError, match="overhead"):
        memory.add(0, memory=1, overhead=4_000)
    memory.check()


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        ({}, InvalidTypeError, "memory must be given"),
        ({"memory": 0}, InvalidValueError, r"memory must be.*\[1, .*got 0"),
        ({"memory": 1.5}, InvalidValueError, "memory must be whole"),
        ({"memory": "4GiB"}, InvalidTypeError, "memory must be integers"),
        ({"memory": 10, "shares": -2}, InvalidValueError, "shares.*got -2"),
        ({"memory": 10, "used": 11}, InvalidValueError, "used of VM 'vm0'.*at most.*got 11"),
        ({"memory": 10, "used": 5, "active": 6}, InvalidValueError, "active of VM"),
        ({"memory": 10, "limit": 5, "reservation": 6}, InvalidValueError, "reservation of VM"),
        ({"memory": 10, "tools": 2}, InvalidValueError, r"tools.*\[0, 1\]"),
        ({"memory": 10, "colour": 1}, InvalidTypeError, "no input 'colour'"),
        ({"memory": 10, "content": {"app": 1}}, InvalidValueError, "no class 'app'"),
        ({"memory": 10, "content": {"zero": -1}}, InvalidValueError, "content 'zero'"),
        ({"memory": 10, "name": 7}, InvalidTypeError, "name must be a string"),
        ({"memory": 10, "host": 1}, InvalidValueError, "host.*got 1"),
        ({"memory": 10, "host": "a"}, InvalidTypeError, "host must be integers"),
    ],
)
def test_bad_machines(inputs, error, words):
    memory = HostMemory(10_000)
    with pytest.raises(error, match=words):
        memory.add(inputs.pop("host", 0), inputs.pop("name", None), **inputs)
    assert len(memory) == 0
    memory.add(0, memory=10)
    memory.step(SECOND)


def test_all_or_none_are_added():
    memory = HostMemory(10_000)
    with pytest.raises(InvalidValueError, match="must be new"):
        memory.add_many([0, 0], ["a", "a"], memory=10)
    with pytest.raises(InvalidValueError, match="used of VM 'b'"):
        memory.add_many([0, 0], ["a", "b"], memory=10, used=[0, 11])
    with pytest.raises(InvalidTypeError, match=r"used must have shape \(2,\)"):
        memory.add_many([0, 0], ["a", "b"], memory=10, used=[0, 1, 2])
    with pytest.raises(InvalidTypeError, match="names must be 2"):
        memory.add_many([0, 0], ["a"], memory=10)
    assert len(memory) == 0
    memory.add(0, "a", memory=10)
    with pytest.raises(InvalidValueError, match="'a'"):
        memory.add(0, "a", memory=10)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("used", 101, "used of VM 'a'.*got 101"),
        ("active", 51, "active of VM 'a'"),
        ("reservation", 101, "reservation of VM 'a'"),
        ("limit", -2, "limit of VM 'a'.*got -2"),
        ("touch_ns", 0, "touch_ns of VM 'a'.*got 0"),
        ("compressible", 1001, "compressible of VM 'a'"),
    ],
)
def test_bad_columns_stop_a_step_before_it_begins(name, value, words):
    memory = HostMemory(10_000)
    memory.add(0, "a", memory=100, used=50, active=10)
    run(memory, 2)
    column = memory.vms[name]
    good = int(column[0])
    column[0] = value
    before = memory.vms.copy()
    with pytest.raises(InvalidValueError, match=words):
        memory.step(SECOND)
    after = memory.vms.copy()
    assert all(np.array_equal(before[key], after[key]) for key in before)
    assert memory.now_ns == 2 * SECOND
    column[0] = good
    memory.step(SECOND)


def test_contents_that_are_negative():
    memory = HostMemory(10_000)
    memory.add(0, memory=100)
    memory.content("zero")[0] = -1
    with pytest.raises(InvalidValueError, match="contents"):
        memory.step(SECOND)


def test_what_is_not_an_input_cannot_be_written():
    memory = HostMemory(10_000)
    vm = memory.add(0, "a", memory=100)
    for name in ("mapped", "memory", "salt", "target", "swap_out", "fast"):
        with pytest.raises(ValueError, match="read-only"):
            memory.vms[name][0] = 1
        with pytest.raises(AttributeError, match="cannot be set"):
            setattr(vm, name, 1)
    with pytest.raises(ValueError, match="read-only"):
        memory.hosts.free[0] = 1
    with pytest.raises(AttributeError, match="no column"):
        _ = memory.vms.colour
    with pytest.raises(InvalidValueError, match="no column"):
        _ = memory.vms["colour"]
    with pytest.raises(AttributeError, match="no 'colour'"):
        _ = vm.colour
    with pytest.raises(InvalidTypeError, match="used"):
        vm.used = "much"
    with pytest.raises(InvalidValueError, match="tools"):
        vm.tools = 2
    with pytest.raises(InvalidValueError, match="no class"):
        memory.content("os")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"total_pages": 0}, InvalidValueError, "total_pages.*got 0"),
        ({"total_pages": []}, InvalidTypeError, "total_pages"),
        ({"total_pages": [[1, 2]]}, InvalidTypeError, "total_pages"),
        ({"total_pages": "64GiB"}, InvalidTypeError, "total_pages must be integers"),
        ({"kernel_pages": 1001}, InvalidValueError, "kernel_pages must be at most"),
        ({"kernel_pages": [1, 2]}, InvalidTypeError, "kernel_pages must have shape"),
        ({"classes": "os"}, InvalidTypeError, "classes"),
        ({"classes": ["zero"]}, InvalidValueError, "classes must differ"),
        ({"classes": [1]}, InvalidTypeError, "a class must be a string"),
        ({"tax": 1.5}, InvalidValueError, "tax"),
        ({"seed": -1}, InvalidValueError, "seed"),
        ({"constants": 7}, InvalidTypeError, "constants must be a Constants"),
    ],
)
def test_bad_hosts(arguments, error, words):
    with pytest.raises(error, match=words):
        HostMemory(**{"total_pages": 1000, **arguments})


@pytest.mark.parametrize(
    ("constants", "error"),
    [
        ({"balloon_rate": -1}, InvalidValueError),
        ({"swap_rate": float("nan")}, InvalidValueError),
        ({"period_ns": 0}, InvalidValueError),
        ({"period_ns": 1.5}, InvalidValueError),
        ({"fast_weight": 1.1}, InvalidValueError),
        ({"unzip_ns": "fast"}, InvalidTypeError),
        ({"scan_ns": True}, InvalidTypeError),
    ],
)
def test_bad_constants(constants, error):
    with pytest.raises(error, match=next(iter(constants))):
        Constants(**constants)


@pytest.mark.parametrize("dt", [0, -1, 1.5, "1s", None, True])
def test_bad_steps(dt):
    memory = HostMemory(1000, esx6())
    with pytest.raises((InvalidValueError, InvalidTypeError), match="dt_ns"):
        memory.step(dt)
    with pytest.raises(InvalidValueError, match="threads"):
        memory.step(1, threads=0)
