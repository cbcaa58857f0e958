"""Migrations under budgets: hand-made schedules, and a slow model with sets."""

import numpy as np
import pytest

from oracle.slowcluster import budgets as slow
from pyvirt.cluster import (
    Budgets,
    ClusterError,
    ConstantRate,
    Kind,
    Link,
    Site,
    migrate,
    schedule_migrations,
)
from pyvirt.errors import InvalidTypeError, InvalidValueError

S = 10**9
TEN = Site([10_000] * 4, [10_000, 1000], read_mbps=[8000, 8000, 0], write_mbps=[8000, 8000, 0])


def starts(plan) -> list[float]:
    return (plan.table["start_ns"] / S).tolist()


def test_a_host_bears_eight_vmotions():
    size = 10 * 10**9
    plan = schedule_migrations(TEN, [Kind.VMOTION] * 17, 0, size, destination=1)
    # eight at 1.25e9/8 bytes a second: 64 s; then eight more, then one alone in 8 s
    assert starts(plan) == [0.0] * 8 + [64.0] * 8 + [128.0]
    assert plan.end_ns == 136 * S
    assert plan.most_on_host.tolist() == [8, 8, 0, 0]
    # hosts send and receive at the same time, and other pairs do not disturb
    both = schedule_migrations(
        TEN, [Kind.VMOTION] * 8, [0, 1] * 4, size, destination=[1, 0] * 4, network=0
    )
    assert both.end_ns == 32 * S


def test_a_host_bears_two_storage_vmotions_or_one_and_four():
    size = 8 * 10**9
    two = schedule_migrations(TEN, [Kind.STORAGE] * 3, 0, size, datastore=0, to_datastore=1)
    assert starts(two) == [0.0, 0.0, 16.0]
    assert two.end_ns == 24 * S
    kinds = [Kind.STORAGE] + [Kind.VMOTION] * 5
    mixed = schedule_migrations(
        TEN,
        kinds,
        0,
        size,
        destination=[-1] + [1] * 5,
        datastore=[0] + [-1] * 5,
        to_datastore=[1] + [-1] * 5,
    )
    # the storage vMotion takes 8 s; four vMotions share 1.25e9 bytes a second for 25.6 s, the
    # fifth begins at 8 s, when 5.5e9 bytes are left of each: then five share
    assert starts(mixed) == [0.0] * 5 + [8.0]
    assert mixed.most_on_host[0] == 8
    four_end = 8 + 5.5e9 * 5 / 1.25e9
    assert mixed.table["end_ns"][1:5].tolist() == [round(four_end * S)] * 4
    last = four_end + 2.5e9 / 1.25e9
    assert mixed.table["end_ns"][5] == round(last * S)


def test_networks_bear_four_or_eight():
    pairs = {"source": [0, 1, 2, 3] * 3, "destination": [1, 2, 3, 0] * 3}
    for network, most in ((0, 8), (1, 4)):
        plan = schedule_migrations(
            TEN, [Kind.VMOTION] * 12, size_bytes=10**9, network=network, **pairs
        )
        assert plan.most_on_network[network] == most


def test_a_datastore_bears_eight_storage_vmotions_or_128_vmotions():
    hosts = Site([10_000] * 64, [10_000] * 64, read_mbps=[8000, 0], write_mbps=[0, 8000])
    plan = schedule_migrations(
        hosts, [Kind.STORAGE] * 10, np.arange(10), 10**9, datastore=0, to_datastore=1
    )
    assert starts(plan) == [0.0] * 8 + [8.0] * 2
    assert plan.most_on_datastore.tolist() == [128, 128]
    many = np.arange(256)
    plan = schedule_migrations(
        hosts,
        [Kind.VMOTION] * 256,
        many % 32,
        1000,
        destination=32 + many % 32,
        network=many % 32,
        datastore=1,
        switch_over_ns=S,
    )
    assert plan.most_on_datastore.tolist() == [0, 128]
    assert (plan.table["start_ns"] > 0).sum() == 128


def test_vmotion_and_storage_share_a_datastore():
    """One storage vMotion leaves room for 112 vMotions at its datastore."""
    hosts = Site([10_000] * 40, [10_000] * 40, read_mbps=[8000, 8000])
    kinds = [Kind.STORAGE] + [Kind.VMOTION] * 120
    rows = np.arange(121)
    plan = schedule_migrations(
        hosts,
        kinds,
        np.where(rows == 0, 39, rows % 19),
        np.where(rows == 0, 10**9, 1000),
        destination=np.where(rows == 0, -1, 19 + rows % 19),
        network=rows % 19,
        datastore=0,
        to_datastore=np.where(rows == 0, 1, -1),
        switch_over_ns=np.where(rows == 0, 0, 5 * S),
    )
    assert (plan.table["start_ns"] == 0).sum() == 113
    # the rest begins when the storage vMotion ends, after 1 s
    assert (plan.table["start_ns"][113:] == S).all()


def test_fifo_does_not_let_a_big_one_starve():
    kinds = [Kind.VMOTION] * 6 + [Kind.SHARED_NOTHING] + [Kind.VMOTION] * 4
    rows = np.arange(11)
    options = {
        "destination": 1,
        "datastore": np.where(rows == 6, 2, -1),
        "to_datastore": np.where(rows == 6, 0, -1),
    }
    fair = schedule_migrations(TEN, kinds, 0, 10**9, **options)
    greedy = schedule_migrations(TEN, kinds, 0, 10**9, order="first_fit", **options)
    assert (fair.table["start_ns"][7:] >= fair.table["start_ns"][6]).all()
    assert starts(greedy)[7:9] == [0.0, 0.0]
    assert greedy.table["start_ns"][6] > fair.table["start_ns"][6]


def test_rounds_go_on_while_links_are_shared():
    one = schedule_migrations(
        TEN, [Kind.VMOTION], 0, 10**9, destination=1, dirty_bytes_s=125_000_000,
        downtime_goal_ns=0, max_rounds=4, switch_over_ns=7,
    )  # fmt: skip
    row = one.table[0]
    # V_n = M / 10^n
    assert (row["rounds"], row["sent_bytes"]) == (4, 1_111_100_000)
    assert row["end_ns"] == 888_880_007
    assert row["downtime_ns"] == 80_007
    shared = schedule_migrations(
        TEN, [Kind.VMOTION] * 8, 0, 10**9, destination=1, dirty_bytes_s=125_000_000,
    )  # fmt: skip
    # at an eighth of the bandwidth each dirties 0.8 of what it sends
    assert (shared.table["rounds"] > one.table["rounds"][0]).all()


def test_sdps_ends_what_would_not_end():
    """A guest that writes twice what the link sends, alone and with seven others."""
    for count in (1, 8):
        options = {
            "destination": 1,
            "dirty_bytes_s": 2_500_000_000,
            "downtime_goal_ns": 10**8,
            "switch_over_ns": 0,
        }
        helped = schedule_migrations(TEN, [Kind.VMOTION] * count, 0, 10**10, **options)
        left = schedule_migrations(TEN, [Kind.VMOTION] * count, 0, 10**10, sdps=False, **options)
        assert (left.table["rounds"] == 1).all()
        assert (left.table["downtime_ns"] == 8 * S * count).all()
        assert (helped.table["downtime_ns"] <= 10**8).all()
        assert (helped.table["lost_ns"] > 0).all()
        assert (helped.table["rounds"] > 5).all()


@pytest.mark.parametrize("rate", [0, 30_000, 250_000, 400_000, 5_000_000])
def test_one_alone_is_the_model_of_migrate(rate: int):
    """Whole bytes a millisecond against floats: the same rounds, to their rounding."""
    one = migrate(8 << 30, ConstantRate(rate), Link(10_000))
    plan = schedule_migrations(
        TEN, [Kind.VMOTION], 0, 8 << 30, destination=1, dirty_bytes_s=rate * 4096,
        switch_over_ns=100_000_000, downtime_goal_ns=400_000_000,
    )  # fmt: skip
    row = plan.table[0]
    assert row["rounds"] == len(one.rounds)
    assert row["end_ns"] == pytest.approx(one.total_ns, rel=1e-5)
    assert row["downtime_ns"] == pytest.approx(one.downtime_ns, rel=1e-4)
    assert row["sent_bytes"] == pytest.approx(one.sent_bytes, rel=1e-5)
    assert row["lost_ns"] == pytest.approx(one.lost_ns, rel=1e-4)


def jobs_of(rng, count, hosts, networks, stores):
    rows = []
    for _ in range(count):
        kind = int(rng.choice(4, p=[0.6, 0.15, 0.15, 0.1]))
        source = int(rng.integers(hosts))
        other = int((source + rng.integers(1, hosts)) % hosts)
        store = int(rng.integers(stores))
        elsewhere = int((store + rng.integers(1, stores)) % stores)
        vmotion_store = store if rng.random() < 0.5 else -1
        rows.append(
            {
                "kind": kind,
                "source": source,
                "destination": other if kind in (0, 2) else -1,
                "network": int(rng.integers(networks)),
                "datastore": vmotion_store if kind == 0 else store,
                "to_datastore": elsewhere if kind in (1, 2, 3) else -1,
                "size_bytes": int(rng.integers(1, 30)) * 10**8 + int(rng.integers(1000)),
                "submit_ns": int(rng.integers(0, 4)) * 3 * S if rng.random() < 0.7 else 0,
                "dirty_bytes_s": int(rng.integers(0, 900_000_000)) if rng.random() < 0.6 else 0,
                "working_set_bytes": int(rng.integers(0, 2)) * int(rng.integers(1, 10**9)),
                "downtime_goal_ns": int(rng.integers(0, 3)) * 10**8,
                "max_rounds": int(rng.integers(1, 9)),
                "switch_over_ns": int(rng.integers(0, 2)) * 10**8,
            }
        )
    return rows


@pytest.mark.parametrize("seed", range(30))
def test_it_is_the_slow_model(seed: int):
    rng = np.random.default_rng(seed)
    hosts, networks, stores = int(rng.integers(2, 7)), int(rng.integers(1, 3)), 3
    host_mbps = rng.choice([1000, 10_000, 25_000], hosts)
    network_mbps = rng.choice([1000, 10_000], networks)
    trunk = rng.choice([0, 7000], networks)
    read, write = rng.choice([0, 3000, 9000], stores), rng.choice([2000, 9000], stores)
    rows = jobs_of(rng, int(rng.integers(1, 60)), hosts, networks, stores)
    overtake, sdps = bool(seed % 2), bool(seed % 3)
    plan = schedule_migrations(
        Site(host_mbps, network_mbps, trunk, read, write),
        **{key: [row[key] for row in rows] for key in rows[0]},
        order="first_fit" if overtake else "fifo",
        sdps=sdps,
    )
    speeds = (("out", host_mbps), ("in", host_mbps), ("trunk", trunk), ("r", read), ("w", write))
    capacity = {(n, i): int(v) * 125 for n, of in speeds for i, v in enumerate(of) if v}
    limits = {("host", i): 8 for i in range(hosts)} | {("store", i): 128 for i in range(stores)}
    limits |= {("net", i): 8 if v >= 10_000 else 4 for i, v in enumerate(network_mbps)}
    jobs = []
    for name, row in enumerate(rows):
        kind, costs, links = row["kind"], {}, []
        costs["host", row["source"]] = (1, 4, 4, 1)[kind]
        if row["destination"] >= 0:
            costs["host", row["destination"]] = (1, 4, 4, 1)[kind]
            costs["net", row["network"]] = 1
            links += [("out", row["source"]), ("in", row["destination"])]
            links += [("trunk", row["network"])]
        for key, side in (("datastore", "r"), ("to_datastore", "w")):
            if row[key] >= 0 and kind != 3:
                costs["store", row[key]] = 1 if kind == 0 else 16
            if row[key] >= 0 and kind != 0:
                links.append((side, row[key]))
        size, most = row["size_bytes"], row["working_set_bytes"]
        jobs.append(
            {
                "name": name,
                "submit": row["submit_ns"],
                "costs": costs,
                "size": size,
                "links": [link for link in links if link in capacity],
                "dirty": row["dirty_bytes_s"] // 1000,
                "most": min(most, size) if most else size,
                "goal": row["downtime_goal_ns"],
                "rounds": row["max_rounds"],
                "switch": row["switch_over_ns"],
                "sdps": kind == 0 and sdps,
            }
        )
    want = slow.run(jobs, limits, capacity, overtake)
    for name, row in enumerate(rows):
        start, end, down, sent, rounds, lost = want[name]
        got = plan.table[name]
        assert (got["start_ns"], got["end_ns"]) == (start, end), (name, row)
        assert (got["sent_bytes"], got["rounds"], got["lost_ns"]) == (sent, rounds, lost)
        assert got["downtime_ns"] == (0 if row["kind"] == 3 else down)
        assert got["wait_ns"] == start - row["submit_ns"]


def test_large_operations():
    """Rounds that send more than 63 bits of millionths in all; disks in larger grains."""
    many = schedule_migrations(
        TEN, [Kind.VMOTION], 0, 4 * 10**12, destination=1, dirty_bytes_s=1_100_000_000,
        downtime_goal_ns=0, max_rounds=60,
    )  # fmt: skip
    assert many.table["sent_bytes"][0] > 2**63 // 10**6
    ratio = 1_100_000 / 1_250_000
    want = 4e12 * (1 - ratio**61) / (1 - ratio)
    assert many.table["sent_bytes"][0] == pytest.approx(want, rel=1e-6)
    disk = {"datastore": 0, "to_datastore": 1}
    for size in (62 * 10**12, 10**15):
        plan = schedule_migrations(TEN, [Kind.STORAGE], 0, size, **disk)
        # a rate is whole grains: 1,000,000 bytes a ms is so in 16 bytes, and nearly in 256
        assert plan.end_ns == pytest.approx(size, rel=1e-4)
        assert plan.table["sent_bytes"][0] == pytest.approx(size, abs=256)
    with pytest.raises(InvalidValueError, match="size_bytes, row 0"):
        schedule_migrations(TEN, [Kind.STORAGE], 0, 2 * 10**15, **disk)


def test_no_budget_is_ever_exceeded():
    rng = np.random.default_rng(5)
    source = rng.integers(0, 10, 500)
    plan = schedule_migrations(
        Site([10_000] * 10),
        np.zeros(500, int),
        source,
        rng.integers(1, 9, 500) * 10**9,
        destination=(source + rng.integers(1, 10, 500)) % 10,
        budgets=Budgets(host=5, network_10g=7),
    )
    assert plan.most_on_host.max() <= 5
    assert plan.most_on_network.tolist() == [7]
    times = np.unique(plan.table["start_ns"])
    running = [((plan.table["start_ns"] <= t) & (plan.table["end_ns"] > t)).sum() for t in times]
    assert max(running) == 7
    assert (np.diff(times) >= 0).all()


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"kind": [Kind.VMOTION]}, "row 0 .VMOTION.: must have a destination"),
        ({"kind": [0, 0], "destination": [1, 0]}, "row 1 .VMOTION.: must not go to the host"),
        ({"kind": [1], "destination": 1}, "must stay on its host"),
        ({"kind": [1], "datastore": 0}, "must have a datastore"),
        ({"kind": [1], "datastore": 0, "to_datastore": 0}, "another datastore"),
        ({"kind": [0], "destination": 1, "to_datastore": 0}, "leaves its disks"),
        ({"kind": [3]}, "nothing that has a speed"),
        ({"kind": [0], "destination": 1, "budgets": Budgets(network_costs=(9, 0, 1, 0))}, "costs"),
        ({"kind": [4]}, "kind, row 0"),
        ({"kind": [0], "destination": 4}, "destination, row 0: must be in"),
        ({"kind": [0], "destination": 1, "order": "lifo"}, "order"),
    ],
)
def test_bad_values(columns, text: str):
    kind = columns.pop("kind")
    with pytest.raises(InvalidValueError, match=text) as caught:
        schedule_migrations(TEN, kind, 0, 1000, **columns)
    if "VMOTION" in text:
        assert isinstance(caught.value, ClusterError)


def test_bad_sites_and_budgets():
    with pytest.raises(InvalidTypeError, match="Site"):
        schedule_migrations(5, [0], 0, 1)
    with pytest.raises(InvalidValueError, match="host_mbps, row 1"):
        schedule_migrations(Site([5, 0]), [0], 0, 1, destination=1)
    with pytest.raises(InvalidValueError, match="network_mbps"):
        schedule_migrations(Site([5, 5], ()), [0], 0, 1, destination=1)
    with pytest.raises(InvalidTypeError, match="host_costs"):
        Budgets(host_costs=(1, 2))
    with pytest.raises(InvalidTypeError, match="shape"):
        schedule_migrations(TEN, [0, 0, 0], [0, 1], 1, destination=2)
    assert str(schedule_migrations(TEN, [], [], [])) == "nothing to do"
