"""Random hosts and VMs, and random changes of what VMs do."""

import numpy as np

from pyvirt.hostmem import HostMemory

CLASSES = ("os", "app")


def random_hosts(seed: int, policy: str, hosts: int = 3, vms: int = 12, **options) -> HostMemory:
    """Hosts that have half to twice of what their VMs are configured with."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 40_000, vms)
    where = rng.integers(0, hosts, vms)
    configured = np.bincount(where, size, hosts).astype(int)
    total = (configured * rng.uniform(0.5, 2.0, hosts)).astype(int) + 4000
    memory = HostMemory(total, policy, classes=CLASSES, seed=seed, **options)
    memory.add_many(
        where,
        memory=size,
        shares=rng.integers(1, 50, vms),
        limit=np.where(rng.random(vms) < 0.8, -1, size // 2),
        reservation=np.where(rng.random(vms) < 0.7, 0, size // 8),
        tools=(rng.random(vms) < 0.8).astype(int),
        large_pages=(rng.random(vms) < 0.5).astype(int),
        salt=rng.integers(-1, 2, vms),
        compressible=rng.integers(0, 1001, vms),
        vcpus=rng.integers(1, 5, vms),
        overhead=rng.integers(0, 100, vms),
        touch_ns=rng.integers(1, 20 * 10**9, vms),
    )
    return memory


def change(memory: HostMemory, rng: np.random.Generator) -> None:
    """Let some VMs use, touch and hold other amounts."""
    vms = memory.vms
    some = rng.random(len(memory)) < 0.5
    used = (vms.memory * rng.random(len(memory))).astype(np.int64)
    vms.used[some] = used[some]
    vms.active[:] = (vms.used * rng.random(len(memory))).astype(np.int64)
    for kind in ("zero", *CLASSES):
        pages = (vms.used * rng.random(len(memory)) / 3).astype(np.int64)
        memory.content(kind)[some] = pages[some]
