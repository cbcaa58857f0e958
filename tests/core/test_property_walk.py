"""One address at a time: the engine equals the slow walker in everything that it reports."""

from dataclasses import replace

from core.compare import fast_memory, keywords, pair, references_of, values_of, words_of
from core.strategies import Case, cases, quick_and_slow
from hypothesis import assume
from oracle.slowwalk import EFER_NXE

from pyvirt import NestedAddressSpace


def check(case: Case) -> None:
    """Result, fault and error codes, references in order, and memory after A/D updates."""
    slow, fast, memory = pair(case)
    for trial in case.trials(16):
        version = memory.version
        assert references_of(fast, *trial) == slow.quiet().translate(*trial).references, trial
        assert memory.version == version, "references() must not write"
        ram = case.tape.chance(30)
        expected = values_of(slow.translate(*trial, require_ram=ram))
        found = fast.translate(*trial, require_ram=ram)
        assert values_of(found) == expected, trial
        assert found.ok == (expected["code"] == 0)
    assert words_of(memory) == slow.memory.nonzero()


def check_nested_space(case: Case) -> None:
    """`NestedAddressSpace` is a guest's walker over a nested one.

    The nested dimension goes by the host's EFER, which the guest does not set.
    """
    guest, nested = case.dims
    assume(guest.format in ("x86-64", "pae", "x86-32"))
    shared = {
        name: getattr(guest, name)
        for name in ("pa_width", "large_1g", "exec_only", "ept_ad", "mbec", "set_ad")
    }
    case.dims = guest, replace(nested, efer=EFER_NXE, **shared)
    slow = case.walker()
    options = keywords(guest)
    space = NestedAddressSpace(
        fast_memory(case.memory),
        guest_cr3=guest.root,
        nested_root=nested.root,
        nested_format=nested.format,
        guest_levels=options.pop("levels"),
        nested_levels=nested.levels,
        guest_format=options.pop("format"),
        **options,
    )
    for trial in case.trials(16):
        assert values_of(space.translate(*trial)) == values_of(slow.translate(*trial)), trial
    assert words_of(space.mem) == slow.memory.nonzero()


test_garbage, test_garbage_slow = quick_and_slow(check, cases(1, "garbage"), 500, 6000)
test_built, test_built_slow = quick_and_slow(check, cases(1, "built"), 300, 4000)
test_nested_garbage, test_nested_garbage_slow = quick_and_slow(
    check, cases(2, "garbage"), 300, 4000
)
test_nested_built, test_nested_built_slow = quick_and_slow(check, cases(2, "built"), 300, 4000)
test_three_garbage, test_three_garbage_slow = quick_and_slow(check, cases(3, "garbage"), 150, 2000)
test_three_built, test_three_built_slow = quick_and_slow(check, cases(3, "built"), 100, 1000)
test_nested_space, test_nested_space_slow = quick_and_slow(check_nested_space, cases(2), 200, 2000)
