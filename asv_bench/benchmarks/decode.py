"""The linear sweep of the decoder, beside iced-x86 and capstone from Python over the same code."""

from __future__ import annotations

import numpy as np

from pyvirt._core.decode.sweep import count, sweep_arrays
from pyvirt.validation.code_sweeps import kernels
from pyvirt.x86.scan import code_of

from .timing import paired, seconds, target, unit

PEER_BYTES = 1 << 20  # what a peer decodes in one turn


def _code(mode: int) -> bytes:
    """The `.text` of a kernel below PYVIRT_KERNELS."""
    found = [path for path in kernels() if path.name.startswith("vmlinuz")]
    for path in found:
        for name, bits, code in code_of(path):
            if bits == mode and name == ".text":
                return bytes(code)
    raise NotImplementedError(f"PYVIRT_KERNELS names no folder with a {mode}-bit kernel")


class Decode:
    """A sweep over a whole kernel's text: boundaries, classes and flow of each instruction."""

    params = ["32", "64"]
    param_names = ["mode"]

    def setup(self, mode):
        self.mode = int(mode)
        self.code = _code(self.mode)
        self.number = int(count(self.code, self.mode)[0].sum())

    def time_count(self, mode):
        count(self.code, self.mode)

    @target(">=", 60)
    @unit("million instructions a second")
    def track_rate(self, mode):
        return (
            self.number / 1e6 / min(seconds(lambda: count(self.code, self.mode)) for _ in range(7))
        )

    @target(">=", 60)
    @unit("million instructions a second, padding left out")
    def track_rate_without_padding(self, mode):
        code = np.frombuffer(self.code, dtype=np.uint8)
        lengths, _, _ = sweep_arrays(self.code, self.mode)
        offsets = np.cumsum(lengths, dtype=np.int64) - lengths
        pad = (code[offsets] == 0xCC) & (lengths == 1)
        bare = code[np.repeat(~pad, lengths)].tobytes()
        number = int((~pad).sum())
        return number / 1e6 / min(seconds(lambda: count(bare, self.mode)) for _ in range(7))

    def _peer(self, sweep) -> float:
        """Times as fast as a peer over the same bytes."""
        part = self.code[:PEER_BYTES]
        return (
            paired(
                lambda: [count(part, self.mode) for _ in range(20)],
                lambda: sweep(part),
                least=5,
                most=9,
                budget_s=4.0,
            ).ratio
            * 20
        )

    @target(">=", 30)
    @unit("times iced-x86, which says length, class and flow of each")
    def track_times_iced(self, mode):
        from pyvirt.validation.iced import sweep_by_iced

        try:
            sweep_by_iced(b"\x90", self.mode)
        except ImportError as error:
            raise NotImplementedError(f"iced-x86 is not installed ({error})") from error
        return self._peer(lambda part: sweep_by_iced(part, self.mode))

    @unit("times iced-x86, which says no more than lengths")
    def track_times_iced_lengths(self, mode):
        try:
            import iced_x86
        except ImportError as error:
            raise NotImplementedError(f"iced-x86 is not installed ({error})") from error

        def lengths(part):
            return [found.len for found in iced_x86.Decoder(self.mode, part)]

        return self._peer(lengths)

    @unit("times capstone, which says lengths and mnemonics")
    def track_times_capstone(self, mode):
        try:
            import capstone
        except ImportError as error:
            raise NotImplementedError(f"capstone is not installed ({error})") from error
        engine = capstone.Cs(capstone.CS_ARCH_X86, getattr(capstone, f"CS_MODE_{self.mode}"))
        engine.skipdata = True

        def lengths(part):
            return [found[1] for found in engine.disasm_lite(part, 0)]

        return self._peer(lengths)
