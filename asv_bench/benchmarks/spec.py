"""A scenario of 64 hosts and 4000 virtual machines, read from TOML and written again."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path

from pyvirt.spec import dump_toml, load_scenario

HEAD = (
    'duration = "24h"\n\n[[cluster.hosts]]\nname = "h"\ncount = 64\ncpus = 32\nmemory = "256GiB"\n'
)
MACHINE = """
[[cluster.vms]]
name = "vm{number}"
vcpus = 2
memory = "4GiB"
host = "h{host}"
workload = {{ cpu = "500MHz", addresses = {{ kind = "zipf" }}, rates = {{ syscalls = 100 }} }}

[[cluster.vms.disks]]
name = "system"
size = "40GiB"
"""


class Scenarios:
    """Beside them the reader of TOML alone, which is half of the time."""

    def setup(self) -> None:
        self.text = HEAD + "".join(
            MACHINE.format(number=number, host=number % 64) for number in range(4000)
        )
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "large.toml"
        self.file.write_text(self.text, encoding="utf-8")
        self.spec = load_scenario(self.file)

    def teardown(self) -> None:
        self.folder.cleanup()

    def time_load(self) -> None:
        load_scenario(self.file)

    def time_dump(self) -> None:
        dump_toml(self.spec)

    def time_tomllib(self) -> None:
        tomllib.loads(self.text)
