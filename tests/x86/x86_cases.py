"""Random cases of `check`, as tuples in the order of its arguments."""

from hypothesis import strategies as st

from pyvirt.x86.protection import Operation

NAMES = [operation.name.lower() for operation in Operation]
OTHERS = ("target", "stack_selector", "stack", "mode")

RAW = st.builds(
    lambda access, flags, names: access << 40 | flags << 52 | names << 16,
    st.integers(0, 255),
    st.integers(0, 15),
    st.integers(0, 0xFFFF),
)
SELECTORS = st.integers(0, 0xFFFF) | st.integers(0, 7)
CASES = st.tuples(
    st.sampled_from(NAMES),
    st.integers(0, 3),
    SELECTORS,
    RAW,
    RAW,
    SELECTORS,
    RAW,
    st.integers(0, 2),
)


def arguments(case: tuple) -> tuple[tuple, dict]:
    """Split a case into what is given by position and by name."""
    return case[:4], dict(zip(OTHERS, case[4:], strict=True))
