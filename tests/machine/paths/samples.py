"""Small plans that share what can be shared, the events that happen to them, and their oracle."""

import numpy as np

from oracle.slowpaths import SlowPaths
from pyvirt.machine.paths import ArrayKind, PathEngine, PathPolicy, Topology

SPAN = 3 * 10**8


def two_paths(policy=None, kind=ArrayKind.ACTIVE_ACTIVE, hosts=1, paths=2, **options):
    """Hosts with an adapter for each path to one volume, whose path k leads to processor k % 2."""
    plan = Topology()
    processors = [plan.component(f"SP{k}", "processor") for k in range(2)]
    disk = plan.component("array", "array", iops=100_000)
    volume = plan.volume("LUN0")
    for host in range(hosts):
        rows = [
            [plan.component(f"h{host}/hba{k}", "adapter"), processors[k % 2], disk]
            for k in range(paths)
        ]
        given = options.get("preferred")
        mine = options | {"preferred": given[host] if isinstance(given, list) else given}
        leads = [k % 2 for k in range(paths)]
        plan.device(
            f"h{host}/LUN0",
            rows,
            volume=volume,
            processors=leads,
            kind=kind,
            policy=policy,
            **mine,
        )
    return plan


def random_plan(rng):
    plan = Topology()
    parts = int(rng.integers(3, 8))
    for c in range(parts):
        plan.component(
            f"c{c}",
            iops=rng.choice([None, 1e3, 1e4, 1e5]),
            mbps=rng.choice([None, 1000.0, 8000.0]),
            delay_ns=int(rng.choice([0, 0, 1000, 500_000])),
            dead_after_ns=int(rng.choice([0, 10**6, 10**7, 5 * 10**7])),
        )
    for v in range(2):
        plan.volume(f"v{v}", owner=int(rng.integers(2)))
    for d in range(int(rng.integers(1, 5))):
        count = int(rng.integers(1, 5))
        rows = [rng.choice(parts, int(rng.integers(1, 4)), False).tolist() for _ in range(count)]
        if rng.random() < 0.3:
            plan.team(
                f"t{d}",
                rows,
                active=int(rng.integers(1, count + 1)),
                policy=PathPolicy(int(rng.integers(3, 8))),
                failback=bool(rng.random() < 0.5),
                ports=5,
                detection_ns=int(rng.choice([0, 10**6, 10**7])),
                link=int(rng.integers(1, 3)),
                beacon=bool(rng.random() < 0.3),
            )
            continue
        plan.device(
            f"d{d}",
            rows,
            volume=int(rng.integers(2)),
            processors=rng.integers(0, 2, count).tolist(),
            kind=ArrayKind(int(rng.integers(3))),
            policy=PathPolicy(int(rng.integers(3))),
            preferred=None if rng.random() < 0.5 else int(rng.integers(count)),
            switch_ios=int(rng.choice([1, 3, 1000])),
            switch_bytes=rng.choice([None, 20000]),
            use_unoptimized=bool(rng.random() < 0.3),
            depth=int(rng.choice([1, 2, 8, 1000])),
            unoptimized_ns=int(rng.choice([0, 200_000])),
            activation_ns=int(rng.choice([1000, 10**6, 10**7])),
        )
    return plan


def random_run(seed, requests=150):
    """An engine and its oracle with the same plan, faults and requests, none of which has run."""
    rng = np.random.default_rng(seed)
    plan = random_plan(rng)
    options = (
        [None, 5 * 10**7, 10**8][int(rng.integers(3))],
        int(rng.choice([0, 10**6])),
        int(rng.choice([10**7, 10**8])),
        int(rng.choice([1, 10, 75])),
    )
    names = ("apd_timeout_ns", "back_after_ns", "balance_ns", "balance_percent")
    engine = PathEngine(plan, **dict(zip(names, options, strict=True)))
    oracle = SlowPaths(plan, *options)
    grain = int(rng.choice([1, 1000, 10**6, 10**7]))  # coarse times happen at once

    def time():
        return int(rng.integers(SPAN)) // grain * grain

    for _ in range(int(rng.integers(0, 8))):
        part, at = int(rng.integers(len(plan.components))), time()
        back = at + int(rng.integers(1, 10**8)) // grain * grain
        for one in (engine, oracle):
            one.fail(part, at)
        if rng.random() < 0.8:
            for one in (engine, oracle):
                one.repair(part, back)
    if rng.random() < 0.3:
        volume, at = int(rng.integers(2)), time()
        for one in (engine, oracle):
            one.lose(volume, at)
    device, at = int(rng.integers(len(plan.devices))), time()
    if rng.random() < 0.2 and not plan.devices[device]["team"]:
        for one in (engine, oracle):
            one.lose_device(device, at)
    for _ in range(int(rng.integers(0, 3))):
        device = int(rng.integers(len(plan.devices)))
        path, at, back = int(rng.integers(plan.devices[device]["count"])), time(), time()
        engine.disable(device, path, at)
        engine.enable(device, path, back)
        oracle.disable(device, path, at)
        oracle.disable(device, path, back, False)
    columns = {
        "at_ns": np.sort([time() for _ in range(requests)]),
        "device": rng.integers(0, len(plan.devices), requests),
        "nbytes": rng.choice([0, 512, 4096, 65536], requests),
        "work_ns": rng.choice([0, 0, 10**5, 3 * 10**6], requests),
        "vm": rng.integers(0, 2, requests),
        "key": rng.integers(0, 5, requests),
    }
    for row in zip(*(column.tolist() for column in columns.values()), strict=True):
        oracle.submit(*row)
    return engine, oracle, columns
