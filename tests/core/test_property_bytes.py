"""Reading and writing through an address space, across pages that lie anywhere or nowhere."""

import pytest

from core.compare import fast_memory, fast_space, words_of
from core.strategies import Case, cases, quick_and_slow
from oracle.slowwalk import SlowWalk
from pyvirt.errors import PageFaultError

MASK = (1 << 64) - 1


def pieces_of(va: int, n: int):
    """The parts of [va, va + n) that lie in one 4 KiB page each, wrapping at 2**64."""
    while n:
        size = min(n, 0x1000 - (va & 0xFFF))
        yield va, size
        va, n = (va + size) & MASK, n - size


def places_of(slow: SlowWalk, va: int, n: int, access: str, user: bool):
    """Host addresses of a range page by page, or the first address that fails with its code."""
    places = []
    for start, size in pieces_of(va, n):
        result = slow.translate(start, access, user, require_ram=True)
        if result.code:
            return places, (start, result.code)
        places.append((result.pa, size))
    return places, None


def bytes_at(slow: SlowWalk, pa: int, size: int) -> bytes:
    """Bytes of a slow memory."""
    start = pa & ~7
    words = [slow.memory.load(where) for where in range(start, pa + size + 8, 8)]
    data = b"".join(word.to_bytes(8, "little") for word in words)
    return data[pa - start : pa - start + size]


def read_bytes(slow: SlowWalk, va: int, n: int, user: bool):
    """Bytes of a range, page after page: A bits that a page sets are seen in the next one."""
    data = b""
    for start, size in pieces_of(va, n):
        places, fault = places_of(slow, start, size, "r", user)
        if fault:
            return b"", fault
        data += bytes_at(slow, *places[0])
    return data, None


def put_bytes(slow: SlowWalk, pa: int, data: bytes) -> None:
    """Store bytes in a slow memory."""
    for i, value in enumerate(data):
        shift = 8 * (pa + i & 7)
        word = slow.memory.load(pa + i & ~7) & ~(0xFF << shift)
        slow.memory.store(pa + i & ~7, word | value << shift)


def check(case: Case) -> None:
    """What is read is what RAM holds; a write is all or nothing, but for A and D bits."""
    slow = case.walker()
    space = fast_space(fast_memory(case.memory), case.dims)
    for _ in range(6):
        va = (case.tape.pick(case.addresses) - case.tape.pick((0, 0, 0x800))) & MASK
        n = case.tape.pick((0, 1, 8, 100, 0x1000, 0x2345))
        user = case.tape.chance(50)
        expected, fault = read_bytes(slow, va, n, user)
        if fault:
            with pytest.raises(PageFaultError) as caught:
                space.read(va, n, user)
            assert (caught.value.va, caught.value.code) == fault
        else:
            assert space.read(va, n, user) == expected
        data = bytes(case.tape.byte() for _ in range(min(n, 64))) * (n // 64 + 1)
        data = data[:n]
        places, fault = places_of(slow, va, n, "w", user)
        if fault:
            with pytest.raises(PageFaultError) as caught:
                space.write(va, data, user)
            assert (caught.value.va, caught.value.code) == fault
        else:
            space.write(va, data, user)
            for pa, size in places:
                put_bytes(slow, pa, data[:size])
                data = data[size:]
        assert words_of(space.mem) == slow.memory.nonzero()


test_bytes, test_bytes_slow = quick_and_slow(check, cases(1), 150, 1500)
test_nested_bytes, test_nested_bytes_slow = quick_and_slow(check, cases(2), 100, 1000)
