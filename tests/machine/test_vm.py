"""Virtual machines: power states, disks, snapshot trees against copies of whole disks."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import InvalidTypeError, InvalidValueError, PowerStateError
from pyvirt.machine.disks import BLOCK, Disk
from pyvirt.machine.vm import TRANSITIONS, VM
from pyvirt.spec import DiskSpec, VMSpec

BLOCKS = 4


def machine(provisioning="thin"):
    disk = DiskSpec("hd0", size=BLOCKS * BLOCK, provisioning=provisioning)
    return VM(VMSpec("vm", disks=(disk,)))


def contents(vm):
    return [vm.disk("hd0").read(block) for block in range(BLOCKS)]


@pytest.mark.parametrize("action", sorted({one for _, one in TRANSITIONS}))
@pytest.mark.parametrize("state", ["off", "on", "suspended"])
def test_power_states(state, action):
    vm = machine()
    vm.state = state
    if (state, action) in TRANSITIONS:
        vm.move(action, "esx1")
        assert vm.state == TRANSITIONS[state, action]
        assert vm.host == ("" if vm.state == "off" else "esx1")
        return
    with pytest.raises(PowerStateError, match=f"is {state} and does not {action}"):
        vm.move(action)
    assert vm.state == state


def test_guests_shut_down_by_their_tools():
    vm = VM("old", tools=False)
    vm.move("power_on", "esx1")
    assert not vm.tools_running
    with pytest.raises(PowerStateError, match="without VMtools"):
        vm.move("shut_down")
    vm.move("power_off")
    assert vm.state == "off"


def test_a_chain():
    vm = machine()
    disk = vm.disk("hd0")
    disk.write([0, 1], 5)
    first = vm.take_snapshot("clean")
    disk.write([1, 2], 6)
    vm.take_snapshot("second")
    disk.write([2], 7)
    assert contents(vm) == [5, 6, 7, 0]
    assert disk.current.depth() == 2
    assert disk.allocated() == 5 * BLOCK
    vm.revert("clean")
    assert contents(vm) == [5, 5, 0, 0]
    assert vm.snapshots.current == first.uid
    # the branch that it left is still there
    vm.revert("second")
    assert contents(vm) == [5, 6, 6, 0]
    assert vm.consolidate() > 0
    assert contents(vm) == [5, 6, 6, 0]
    assert len(vm.snapshots) == 0
    assert len(disk.layers) == 1
    assert disk.allocated() == 3 * BLOCK


def test_a_thick_disk_takes_its_size_and_its_snapshots_what_was_written():
    vm = machine("thick")
    assert vm.disk("hd0").allocated() == BLOCKS * BLOCK
    vm.take_snapshot("one")
    assert vm.disk("hd0").allocated() == BLOCKS * BLOCK
    vm.disk("hd0").write([3], 1)
    assert vm.disk("hd0").allocated() == (BLOCKS + 1) * BLOCK


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sets(st.integers(0, BLOCKS - 1)), st.integers(1, 9)),
        st.tuples(st.just("take")),
        st.tuples(st.just("revert"), st.integers(0, 99)),
        st.tuples(st.just("delete"), st.integers(0, 99), st.booleans()),
        st.tuples(st.just("consolidate")),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_any_tree_holds_what_copies_of_whole_disks_hold(steps):
    """The model keeps a copy of everything for each snapshot; layers must agree with it."""
    vm = machine()
    now, kept, parents, current = [0] * BLOCKS, {}, {}, None
    for step in steps:
        uids = sorted(kept)
        if step[0] == "write":
            vm.disk("hd0").write(step[1], step[2])
            now = [step[2] if block in step[1] else old for block, old in enumerate(now)]
        elif step[0] == "take":
            taken = vm.take_snapshot("x")
            kept[taken.uid], parents[taken.uid], current = list(now), current, taken.uid
        elif step[0] == "consolidate":
            vm.consolidate()
            kept, parents, current = {}, {}, None
        elif uids:
            uid = uids[step[1] % len(uids)]
            if step[0] == "revert":
                vm.revert(uid)
                now, current = list(kept[uid]), uid
            else:
                gone = {uid}
                while step[2]:
                    more = {one for one, above in parents.items() if above in gone} - gone
                    if not more:
                        break
                    gone |= more
                vm.delete_snapshot(uid, children=step[2])
                for one in sorted(gone):
                    above = parents.pop(one)
                    del kept[one]
                    parents = {u: above if p == one else p for u, p in parents.items()}
                    current = above if current == one else current
        assert contents(vm) == now
        assert vm.snapshots.current == current
        assert {one.uid: one.parent for one in vm.snapshots} == parents
    # each snapshot still gives what it gave when it was taken
    for uid in sorted(kept):
        other = pickle.loads(pickle.dumps(vm))
        other.revert(uid)
        assert contents(other) == kept[uid]
    # and nothing is kept that nobody needs: branches alone hold layers without a snapshot
    disk = vm.disk("hd0")
    needed = {one.layers["hd0"] for one in vm.snapshots} | {disk.current.number}
    over = [layer.below.number for layer in disk.layers if layer.below is not None]
    for layer in disk.layers:
        assert layer.number in needed or over.count(layer.number) > 1


def test_memory_in_a_snapshot():
    vm = machine()
    with pytest.raises(PowerStateError, match="has no memory"):
        vm.take_snapshot("x", memory=True)
    vm.move("power_on", "esx1")
    vm.take_snapshot("running", memory=True)
    with pytest.raises(PowerStateError, match="is on and does not revert"):
        vm.revert("running")
    vm.move("power_off")
    vm.revert("running")
    assert vm.state == "suspended"


def test_bad_input():
    vm = machine()
    with pytest.raises(InvalidValueError, match="no disk 'hd1'; there are hd0"):
        vm.disk("hd1")
    with pytest.raises(InvalidValueError, match=r"must be in \[0, 4\), got 4"):
        vm.disk("hd0").write([0, 4], 1)
    assert contents(vm) == [0] * BLOCKS
    with pytest.raises(InvalidTypeError, match="block must be an integer"):
        vm.disk("hd0").read(1.0)
    with pytest.raises(InvalidValueError, match="no snapshot is 'x'; there are none"):
        vm.revert("x")
    vm.take_snapshot("x")
    vm.take_snapshot("x")
    with pytest.raises(InvalidValueError, match="several snapshots are 'x'"):
        vm.revert("x")
    with pytest.raises(InvalidTypeError, match="uid or a name"):
        vm.revert(None)
    with pytest.raises(InvalidValueError, match="name of a snapshot"):
        vm.take_snapshot("")
    with pytest.raises(InvalidValueError, match="action must be one of"):
        vm.move("explode")
    with pytest.raises(InvalidTypeError, match="beside a VMSpec"):
        VM(VMSpec("a"), vcpus=2)
    with pytest.raises(InvalidTypeError, match="spec must be"):
        VM(7)
    with pytest.raises(InvalidValueError, match="provisioning"):
        Disk("a", 1, "fat")
    with pytest.raises(InvalidValueError, match="size"):
        Disk("a", -1)
    with pytest.raises(InvalidTypeError, match="size"):
        Disk("a", "1")


def test_a_chain_has_an_end():
    vm = machine()
    for _ in range(32):
        vm.take_snapshot("x")
    with pytest.raises(InvalidValueError, match="at most 32 links"):
        vm.take_snapshot("x")
