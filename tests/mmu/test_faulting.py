"""A guest that maps pages at faults: the program runs through, and only first touches fault."""

from typing import Any

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.errors import FrameExhaustedError, InvalidTypeError, InvalidValueError
from pyvirt.mmu import faulting
from pyvirt.mmu.faulting import DIRECT, FaultingGuest
from pyvirt.traces import EVENT_DTYPE, Arg, Op, accesses


def stream(n: int = 4000, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    near = 0x5000_0000_0000 + rng.integers(0, 1 << 24, n)
    far = rng.integers(0, 1 << 47, n)
    low = 0xFFFF_8000_0000_0000 + rng.integers(0, 1 << 30, n).astype(np.uint64)
    vas = np.where(rng.random(n) < 0.1, far, near).astype(np.uint64)
    vas = np.where(rng.random(n) < 0.05, low, vas)
    events = accesses(vas, rng.integers(1, 5, n), rng.integers(0, 17, n), user=rng.random(n) < 0.5)
    events["vcpu"] = rng.integers(0, 2, n)
    return events


def touched(events: Any, shift: int) -> set[int]:
    first = events["addr"]
    last = first + np.maximum(events["size"], 1).astype(np.uint64) - np.uint64(1)
    return set((np.concatenate([first, last]) >> np.uint64(shift)).tolist())


def test_the_operations_are_those_of_traces():
    assert (faulting.LOAD, faulting.STORE, faulting.MODIFY) == (Op.LOAD, Op.STORE, Op.MODIFY)
    assert (faulting.USER, faulting.GIVEN, faulting.HANDLER) == (Arg.USER, Arg.GIVEN, Arg.HANDLER)
    assert set(faulting.HARMLESS) == {Op.NOP, Op.INVLPG, Op.VM_ENTRY, Op.VM_EXIT, Op.IO}


@pytest.mark.parametrize("page", ["4K", "2M"])
@pytest.mark.parametrize("tables", ["none", "shadow", "tdp"])
def test_only_first_touches_fault(page: Any, tables: Any):
    events = stream()
    guest = FaultingGuest(page)
    machine = pv.Hypervisor(guest.memory, cr3=guest.cr3, tables=tables, vcpus=2)
    faults = 0
    for chunk in guest.serve(np.array_split(events, 7)):
        codes = np.zeros(len(chunk), np.uint16)
        assert machine.run(chunk, codes=codes) == len(chunk)
        faults += np.count_nonzero(codes == 4)
        # a handler runs exactly after a fault: nothing is skipped
        assert not np.any(codes == 5)
    pages = touched(events, 12 if page == "4K" else 21)
    assert guest.page_faults == len(pages)
    # an access of two new pages faults once
    assert faults == machine.counters["guest_faults"][0] <= len(pages)
    assert not machine.check()
    space = pv.AddressSpace(guest.memory, cr3=guest.cr3)
    found = space.translate(events["addr"], "w", user=True)
    assert found.ok.all()
    frames = set((space.translate(events["addr"]).pa >> np.uint64(12)).tolist())
    assert page == "2M" or len(frames) == len(touched(accesses(events["addr"]), 12))


@pytest.mark.parametrize("page", ["4K", "2M"])
def test_the_stream_does_not_depend_on_chunks(page: Any):
    events = stream()
    whole = np.concatenate(list(FaultingGuest(page).serve([events])))
    parts = np.concatenate(list(FaultingGuest(page).serve(np.array_split(events, 97))))
    assert np.array_equal(whole, parts)
    again = (whole["arg"] & Arg.HANDLER) == 0
    assert np.array_equal(whole[again], events)


def test_other_bits_of_arg_are_no_trace_s():
    events = accesses([0x1000, 0x1000], user=True)
    events["arg"] |= np.uint32(Arg.HANDLER | Arg.GIVEN)
    served = np.concatenate(list(FaultingGuest().serve([events])))
    assert served["arg"][0] == served["arg"][-1] == Arg.USER


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ((Op.MOV_CR3, 0, 0), r"event 5 \(op 16\) is about the recorded system's own tables"),
        ((Op.STORE_TABLE, 8, 0), r"event 5 \(op 32\)"),
        ((Op.LOAD, 8, 1 << 47), "event 5: 0x800000000000 is not canonical"),
        ((Op.LOAD, 8, DIRECT + 4096), "event 5: 0xffff888000001000 is in the kernel's map"),
    ],
)
def test_events_that_it_cannot_follow(event: tuple[int, int, int], words: str):
    events = np.zeros(3, EVENT_DTYPE)
    events["op"], events["size"], events["addr"] = np.array([event] * 3).T
    events["op"][:2] = Op.NOP
    guest = FaultingGuest()
    with pytest.raises(InvalidValueError, match=words):
        list(guest.serve([accesses([0, 0, 0]), events]))


def test_memory_that_is_used_up():
    guest = FaultingGuest(memory="64MiB")
    vas = np.arange(0, 1 << 27, 4096)
    with pytest.raises(FrameExhaustedError, match="the guest's 64 MiB of memory are used up"):
        list(guest.serve([accesses(vas)]))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        (("1G",), {}, InvalidValueError, 'page must be "4K" or "2M"'),
        ((), {"memory": 1 << 20}, InvalidValueError, "memory must be a multiple of 2 MiB"),
        ((), {"memory": (1 << 27) + 1}, InvalidValueError, "memory must be a multiple of 2 MiB"),
        ((), {"memory": 1e9}, InvalidTypeError, "memory must be a size"),
    ],
)
def test_bad_input(arguments, options, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        FaultingGuest(*arguments, **options)


def test_what_is_no_trace():
    with pytest.raises(InvalidTypeError, match="a trace has arrays of EVENT_DTYPE"):
        list(FaultingGuest().serve([np.zeros(3)]))
