"""One address at a time: the engine equals the slow walker in everything that it reports."""

from core.compare import pair, references_of, values_of, words_of
from core.strategies import Case, cases, quick_and_slow


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


test_garbage, test_garbage_slow = quick_and_slow(check, cases(1, "garbage"), 500, 6000)
test_built, test_built_slow = quick_and_slow(check, cases(1, "built"), 300, 4000)
test_nested_garbage, test_nested_garbage_slow = quick_and_slow(
    check, cases(2, "garbage"), 300, 4000
)
test_nested_built, test_nested_built_slow = quick_and_slow(check, cases(2, "built"), 300, 4000)
test_three_garbage, test_three_garbage_slow = quick_and_slow(check, cases(3, "garbage"), 150, 2000)
test_three_built, test_three_built_slow = quick_and_slow(check, cases(3, "built"), 100, 1000)
