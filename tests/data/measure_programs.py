"""Measure what small programs do to their memory on the Linux that runs this.

    python tests/data/measure_programs.py

prints the values of pyvirt/guest/profile_data/programs.toml that have the source "measured":
faults and times of a program from fork to exit (wait4), and, for one that stops itself, what its
areas hold (/proc/PID/smaps) and how large its page tables are (VmPTE).
"""

import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
from pathlib import Path

SOURCE = '#include <stdio.h>\nint main(void) { return puts("hello") < 0; }\n'
RUNS = 9


def run(command: list[str]) -> tuple[int, int]:
    """Minor faults of a command and of all that it waits for; context switches it asked for."""
    quiet = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in range(3)]
    # not os.fork(): the faults of a copy of this interpreter would be counted, too
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    assert status == 0, command
    return usage.ru_minflt, usage.ru_nvcsw


def calls(command: list[str]) -> dict[str, int]:
    """System calls of a command and of those that it starts, all and some by name (strace)."""
    counts = dict.fromkeys(("execve", "mmap", "munmap", "mprotect", "brk"), 0)
    with tempfile.NamedTemporaryFile("r") as summary:
        trace = ["strace", "-f", "-qq", "-c", "-U", "calls,name", "-o", summary.name, *command]
        subprocess.run(trace, capture_output=True, check=True)
        for line in summary:
            if found := re.match(r" *(\d+) +(\w+)$", line):
                if found[2] == "total":
                    counts["all"] = int(found[1])
                elif found[2] in counts:
                    counts[found[2]] = int(found[1])
    return counts


def stopped(command: list[str]) -> dict[str, int]:
    """What the areas of a shell hold that stops itself, in pages."""
    pid = os.fork()
    if pid == 0:
        os.execvp(command[0], command)
    os.waitpid(pid, os.WUNTRACED)
    pages = {"areas": 0, "text": 0, "text_present": 0, "data_written": 0, "stack_written": 0}
    kind = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if found := re.match(r"[0-9a-f]+-[0-9a-f]+ (\S+) .* \d+ *(.*)", line):
            rights, name = found.groups()
            pages["areas"] += 1
            kind = "text" if "x" in rights and name.startswith("/") else "data"
            kind = "stack" if name == "[stack]" else kind
        elif found := re.match(r"(Size|Rss|Private_Dirty|Anonymous): +(\d+) kB", line):
            what, count = found[1], int(found[2]) // 4
            if kind == "text":
                pages["text"] += count if what == "Size" else 0
                pages["text_present"] += count if what == "Rss" else 0
            elif what == "Anonymous":
                pages[f"{kind}_written"] += count
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmPTE:\s+(\d+) kB", status)
    assert found is not None
    pages["tables"] = int(found[1]) // 4
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return pages


def main() -> None:
    print(f"# {platform.system()} {platform.release()}, page size {os.sysconf('SC_PAGE_SIZE')}")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "hello.c")
        source.write_text(SOURCE)
        compile_ = ["gcc", "-O2", "-c", str(source), "-o", f"{folder}/hello.o"]
        for name, command in (("sh", ["sh", "-c", ":"]), ("ls", ["ls", "/"]), ("gcc", compile_)):
            if shutil.which(command[0]):
                runs = [run(command) for _ in range(RUNS)]
                faults, waits = (statistics.median(column) for column in zip(*runs, strict=True))
                print(f"{name}: faults = {faults:g}, switches = {waits:g}")
                if shutil.which("strace"):
                    print(f"{name}: calls", calls(command))
    for name, command in (
        ("sh", ["sh", "-c", "kill -STOP $$"]),
        ("bash", ["bash", "-c", "kill -STOP $$"]),
    ):
        if shutil.which(command[0]):
            print(f"{name}:", ", ".join(f"{k} = {v}" for k, v in stopped(command).items()))


if __name__ == "__main__":
    main()
