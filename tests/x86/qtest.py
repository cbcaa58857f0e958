"""QEMU's devices without its processor, by its test protocol: ports, while time stands still."""

import shutil
import subprocess
from typing import Self

QEMU = shutil.which("qemu-system-i386")


class QTest:
    """`read_port` and `write_port` as `Board` has them; the processor never starts."""

    def __init__(self, *options: str) -> None:
        command = [
            QEMU, "-machine", "pc", "-S", "-display", "none", "-monitor", "none",
            "-serial", "null", "-net", "none", "-qtest", "stdio", "-qtest-log", "/dev/null",
            *options,
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, bufsize=1,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *what: object) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def ask(self, line: str) -> str:
        self.process.stdin.write(line + "\n")
        while True:
            answer = self.process.stdout.readline()
            if not answer:
                raise RuntimeError("qemu ended")
            if answer.startswith("OK"):
                return answer[2:].strip()
            if not answer.startswith("IRQ"):
                raise RuntimeError(answer)

    def read_port(self, port: int, size: int = 1) -> int:
        return int(self.ask(f"in{' bw l'[size]} {port:#x}"), 16)

    def write_port(self, port: int, value: int, size: int = 1) -> None:
        self.ask(f"out{' bw l'[size]} {port:#x} {value:#x}")
