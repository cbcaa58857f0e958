"""The replay beside the slow model, on days made up of constant, idle and restless VMs."""

import csv
import doctest
import runpy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from oracle.slowcluster.beloglazov import Replay
from oracle.slowcluster.recount import recount
from pyvirt.cluster import (
    ClusterError,
    Corrections,
    PowerTable,
    ReplayHost,
    ReplaySetup,
    ReplayVM,
    beloglazov,
    beloglazov_faults,
    beloglazov_replay,
    beloglazov_setup,
)
from pyvirt.errors import InvalidTypeError, InvalidValueError

G4 = (2, 1860.0, 4096.0, [86, 89.4, 92.6, 96, 99.5, 102, 106, 108, 112, 114, 117])
G5 = (2, 2660.0, 4096.0, [93.7, 97, 101, 105, 110, 116, 121, 125, 129, 133, 135])
TYPES = [(2500.0, 870.0), (2000.0, 1740.0), (1000.0, 1740.0), (500.0, 613.0)]
HOSTS = 20
PARAMETERS = {"npa": None, "dvfs": None, "thr": 0.8, "iqr": 1.5, "mad": 2.5, "lr": 1.2, "lrr": 1.2}
POLICIES = [("npa", "mmt"), ("dvfs", "mmt")]
POLICIES += [
    (policy, selection)
    for policy in ("thr", "iqr", "mad", "lr", "lrr")
    for selection in ("mmt", "mu", "rs", "mc")
]
SWITCHES = [field.name for field in fields(Corrections)]


def day(seed: int, vms: int = 30, samples: int = 40) -> np.ndarray:
    """Walks, bursts, constants and silences, so that ties and zeros are frequent."""
    rng = np.random.default_rng(seed)
    util = np.empty((vms, samples), dtype=np.uint8)
    for v in range(vms):
        kind = rng.integers(4)
        if kind == 0:
            row = np.clip(np.cumsum(rng.integers(-9, 10, samples)) + 30, 0, 100)
        elif kind == 1:
            row = rng.integers(60, 101) * (rng.random(samples) < 0.3) + rng.integers(1, 9)
        elif kind == 2:
            row = np.full(samples, rng.choice([5, 10, 20, 50]))
        else:
            row = rng.integers(0, 15, samples)
            row[rng.integers(samples // 2, 2 * samples) :] = 0
        util[v] = np.clip(row, 0, 100)
    return util


def both(util, policy, selection, fix=(), seed=7):
    """Our result and the slow model."""
    state = int(np.random.default_rng(seed).integers(0, 1 << 63, dtype=np.uint64, endpoint=True))
    slow = Replay(
        util,
        [G4, G5],
        [i % 2 for i in range(HOSTS)],
        TYPES,
        policy,
        selection,
        PARAMETERS[policy],
        fix,
        state,
    )
    figures = slow.run()
    fidelity = {"fidelity": "corrected", "corrections": Corrections(**dict.fromkeys(fix, True))}
    result = beloglazov(
        util,
        policy,
        selection,
        setup=ReplaySetup.planetlab(hosts=HOSTS),
        rng=seed,
        record=True,
        **(fidelity if fix else {}),
    )
    return result, slow, figures


def compare(result, slow, figures) -> None:
    record = result.record
    assert record.placement.tolist() == slow.placement
    assert record.migrations.tolist() == slow.moves
    assert record.steps["time_s"].tolist() == [step[0] for step in slow.steps]
    assert record.steps["hosts_on"].tolist() == [step[1] for step in slow.steps]
    np.testing.assert_allclose(record.steps["energy_kwh"], [step[2] for step in slow.steps], 1e-13)
    assert record.steps["migrations"].tolist() == [step[3] for step in slow.steps]
    assert record.steps["vms"].tolist() == [step[4] for step in slow.steps]
    assert record.utilisation.tolist() == [step[5] for step in slow.steps]
    assert list(result.as_dict()) == list(figures)
    for name, value in result.as_dict().items():
        if isinstance(value, int):
            assert value == figures[name], name
        else:
            assert value == pytest.approx(figures[name], rel=1e-9, nan_ok=True), name


@pytest.mark.parametrize(("policy", "selection"), POLICIES)
def test_faithful(policy: str, selection: str):
    for seed in range(3):
        compare(*both(day(seed), policy, selection))


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize(
    ("policy", "selection"),
    [("npa", "mmt"), ("dvfs", "mmt"), ("thr", "mc"), ("mad", "rs"), ("lr", "mu"), ("lrr", "mmt")],
)
def test_one_fault_repaired(policy: str, selection: str, switch: str):
    compare(*both(day(3), policy, selection, [switch]))


@pytest.mark.parametrize(("policy", "selection"), POLICIES)
def test_all_faults_repaired(policy: str, selection: str):
    compare(*both(day(4), policy, selection, SWITCHES))


@pytest.mark.parametrize("seed", range(20))
def test_faults_at_random(seed: int):
    rng = np.random.default_rng([1, seed])
    policy, selection = POLICIES[rng.integers(len(POLICIES))]
    fix = [name for name in SWITCHES if rng.random() < 0.5]
    vms, samples = int(rng.integers(1, 36)), int(rng.integers(2, 60))
    compare(*both(day(seed + 100, vms, samples), policy, selection, fix, seed))


@pytest.mark.parametrize("seed", range(4))
def test_figures_follow_from_the_record(seed: int):
    """Energy and service levels are counted again from placement and migrations alone."""
    util = day(seed + 50)
    policy, selection = [("thr", "mmt"), ("lr", "mc"), ("iqr", "mu"), ("dvfs", "mmt")][seed]
    result = beloglazov(
        util, policy, selection, setup=ReplaySetup.planetlab(hosts=HOSTS), record=True
    )
    record = result.record
    kinds = [[G4, G5][i % 2] for i in range(HOSTS)]
    types = [TYPES[v // -(-len(util) // 4)] for v in range(len(util))]
    figures = recount(util, kinds, types, record.placement.tolist(), record.migrations.tolist())
    for name, value in figures.items():
        assert value == pytest.approx(getattr(result, name), rel=1e-9), name


def test_no_switch_is_the_faithful_model():
    util = day(9)
    setup = ReplaySetup.planetlab(hosts=HOSTS)
    faithful = beloglazov(util, "iqr", "mc", setup=setup)
    assert faithful == beloglazov(
        util, "iqr", "mc", setup=setup, fidelity="corrected", corrections=Corrections()
    )
    assert faithful != beloglazov(util, "iqr", "mc", setup=setup, fidelity="corrected")


def test_every_switch_changes_something():
    util = np.concatenate([day(seed) for seed in range(3)])
    setup = ReplaySetup.planetlab(hosts=60)
    for name in SWITCHES:
        one = Corrections(**{name: True})
        results = [
            beloglazov(util, policy, "mmt", setup=setup, fidelity="corrected", corrections=one)
            for policy in ("thr", "lr", "lrr")
        ]
        plain = [beloglazov(util, policy, "mmt", setup=setup) for policy in ("thr", "lr", "lrr")]
        assert results != plain, name


def test_regressions_differ_only_where_they_are_weighted():
    util = np.concatenate([day(seed) for seed in range(3)])
    setup = ReplaySetup.planetlab(hosts=60)
    weighted = Corrections(weighted_regression=True)
    assert beloglazov(util, "lr", setup=setup) == beloglazov(util, "lrr", setup=setup)
    lr, lrr = (
        beloglazov(util, policy, setup=setup, fidelity="corrected", corrections=weighted)
        for policy in ("lr", "lrr")
    )
    assert lr.energy_kwh != lrr.energy_kwh


def test_threads_replay_the_same():
    days = [day(seed) for seed in range(6)]
    setup = ReplaySetup.planetlab(hosts=HOSTS)

    def run(util):
        return beloglazov(util, "mad", "rs", setup=setup, rng=5)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(run, days)) == [run(util) for util in days]


def test_other_hosts_and_vms():
    """Three types of hosts in a given order, VMs of given types, a slow network, wide lists."""
    table = [50, 60, 70, 75, 80, 90, 95, 99, 101, 103, 110]
    host_kinds = [0, 2, 1, 1, 2, 0, 2]
    shapes = [(2, 1860.0, 4096.0), (4, 2660.0, 8192.0), (64, 3000.0, 1e6)]
    vm_types = [(1200.0, 512.0), (300.0, 2048.0)]
    setup = ReplaySetup(
        [ReplayHost(*shape, PowerTable(table)) for shape in shapes],
        [ReplayVM(*vm) for vm in vm_types],
        7,
        host_kinds=host_kinds,
        migration_mb_s=20.0,
    )
    util = np.tile(day(12, 30, 12), (8, 1))
    slow = Replay(
        util,
        [(*shape, table) for shape in shapes],
        host_kinds,
        vm_types,
        "thr",
        "mmt",
        0.8,
        speed=20.0,
    )
    figures = slow.run()
    compare(beloglazov(util, "thr", "mmt", setup=setup, record=True), slow, figures)
    assert max(np.bincount(slow.placement)) > 65  # more than the room that lists begin with
    kinds = np.arange(len(util)) // 120
    assert beloglazov(util, setup=setup) == beloglazov(
        util,
        setup=ReplaySetup(
            setup.host_types,
            setup.vm_types,
            7,
            host_kinds=host_kinds,
            vm_kinds=kinds,
            migration_mb_s=20.0,
        ),
    )


def test_utilisation_of_any_type():
    util = day(1)
    setup = ReplaySetup.planetlab(hosts=HOSTS)
    expected = beloglazov(util, setup=setup)
    for given in (util.tolist(), util.astype(np.float32), np.asfortranarray(util), util[:, ::1]):
        assert beloglazov(given, setup=setup) == expected


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"util": [[1, 2], [3, 101]]}, InvalidValueError, "row 1, sample 1.*got 101"),
        ({"util": [[1.0, np.nan]]}, InvalidValueError, "row 0, sample 1.*got nan"),
        ({"util": [[1, -1]]}, InvalidValueError, "row 0, sample 1.*got -1"),
        ({"util": [1, 2]}, InvalidValueError, r"shape \(2,\)"),
        ({"util": [[1], [2]]}, InvalidValueError, "two samples"),
        ({"util": [["a", "b"]]}, InvalidTypeError, "util must be numbers"),
        ({"policy": "lrrr"}, InvalidValueError, "policy must be one of npa.*got 'lrrr'"),
        ({"selection": "min"}, InvalidValueError, "selection must be one of"),
        ({"parameter": -0.1}, InvalidValueError, "parameter must not be negative, got -0.1"),
        ({"parameter": "big"}, InvalidTypeError, "parameter must be a number"),
        ({"policy": "npa", "parameter": 1}, InvalidValueError, "npa has no parameter"),
        ({"fidelity": "exact"}, InvalidValueError, "fidelity must be"),
        ({"corrections": Corrections()}, InvalidValueError, "corrections need"),
        ({"fidelity": "corrected", "corrections": 7}, InvalidTypeError, "must be Corrections"),
        ({"selection": "rs"}, InvalidValueError, "rng must be given"),
        ({"selection": "rs", "rng": -1}, InvalidValueError, "rng must not be negative"),
        ({"selection": "rs", "rng": "x"}, InvalidTypeError, "rng must be a seed"),
        ({"setup": 800}, InvalidTypeError, "setup must be a ReplaySetup"),
        ({"setup": ReplaySetup.planetlab(1)}, ClusterError, "row 0: no host can take.*2500 MIPS"),
    ],
)
def test_bad_arguments(change: dict, error: type[Exception], text: str):
    arguments = {"util": [[10, 20], [30, 40]], **change}
    with pytest.raises(error, match=text):
        beloglazov(**arguments)


HOST = ReplayHost(2, 1000.0, 4096.0, PowerTable(range(11)))
GUEST = ReplayVM(500.0, 512.0)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: ReplayVM(0, 512), InvalidValueError, "mips must be above 0"),
        (lambda: ReplayVM(500, "1G"), InvalidTypeError, "memory_mb must be a number"),
        (lambda: ReplayHost(1.5, 1, 1, HOST.power), InvalidValueError, "cores must be a whole"),
        (lambda: ReplayHost(1, 1, 1, [1, 2]), InvalidTypeError, "power must be a PowerTable"),
        (
            lambda: ReplayHost(1, 1, 1, PowerTable([1, 2], [0, 1])),
            InvalidValueError,
            "resampled",
        ),
        (lambda: ReplaySetup([], [GUEST]), InvalidValueError, "host_types must not be empty"),
        (lambda: ReplaySetup([GUEST], [GUEST]), InvalidTypeError, "must be of ReplayHost"),
        (lambda: ReplaySetup([HOST], [GUEST], 0), InvalidValueError, "hosts must be at least 1"),
        (lambda: ReplaySetup([HOST], [GUEST], 2.0), InvalidTypeError, "whole number"),
        (lambda: ReplaySetup([HOST], [GUEST], 2, [0, 1]), InvalidValueError, r"host_kinds\[1\]"),
        (lambda: ReplaySetup([HOST], [GUEST], 2, [0]), InvalidValueError, "2 entries, got 1"),
        (lambda: ReplaySetup([HOST], [GUEST], 2, [0.5]), InvalidTypeError, "of integers"),
        (
            lambda: ReplaySetup([HOST], [ReplayVM(1, 30_000)]),
            InvalidValueError,
            "takes 480 s; it must be less than 300 s",
        ),
        (
            lambda: beloglazov([[1, 2]], setup=ReplaySetup([HOST], [GUEST], vm_kinds=[0, 0])),
            InvalidValueError,
            "vm_kinds must have 1 entries",
        ),
        (lambda: Corrections(memory=1), InvalidTypeError, "memory must be True or False"),
    ],
)
def test_bad_setups(make, error: type[Exception], text: str):
    with pytest.raises(error, match=text):
        make()


def reference(data_dir: Path) -> list[dict[str, str]]:
    path = data_dir / "planetlab" / "cloudsim_reference.csv"
    if not path.exists():
        pytest.skip("the data folder has no planetlab/cloudsim_reference.csv")
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_random_selection_is_drawn_from_the_same_distribution(data_dir: Path):
    """CloudSim's draws were not seeded: they must lie among ours, within four deviations."""
    rows = [row for row in reference(data_dir) if row["selection"] == "rs"]
    assert rows
    for row in rows:
        with np.load(data_dir / "planetlab" / f"{row['day']}.npz") as file:
            util = file["util"]
        ours = [beloglazov(util, row["policy"], "rs", rng=seed) for seed in range(8)]
        assert {result.vms_left for result in ours} == {int(row["vms_left"])}
        for name in ("energy_kwh", "migrations", "slatah", "pdm"):
            values = np.array([getattr(result, name) for result in ours])
            far = (float(row[name]) - values.mean()) / values.std(ddof=1)
            assert abs(far) < 4, (row["day"], row["policy"], name)


def test_the_tables_of_the_guide(data_dir: Path):
    docs = Path(__file__).parents[2] / "docs"
    guide, script = docs / "guide" / "cluster-beloglazov.md", docs / "replay_faults.py"
    if not guide.exists():
        pytest.skip("the documentation is not beside the tests")
    days = sorted({row["day"] for row in reference(data_dir)})
    tables = runpy.run_path(str(script))["tables"]
    assert tables(data_dir / "planetlab", days).strip() in guide.read_text(encoding="utf-8")


@pytest.mark.parametrize("module", [beloglazov_faults, beloglazov_replay, beloglazov_setup])
def test_docstrings(module):
    assert doctest.testmod(module).failed == 0
