"""Scores of VMs: what a crowded host delivers, and moves that keep all rules."""

import numpy as np
import pytest

from cluster.samples import random_cluster
from oracle.slowcluster.reach import may_be_on
from pyvirt.cluster import Cluster
from pyvirt.cluster.vm_score import improve_scores, vm_scores
from pyvirt.errors import InvalidValueError


def two_hosts(*demands: int) -> Cluster:
    return Cluster.from_tables(
        {"cpu_mhz": [10_000, 10_000], "memory_bytes": [64 << 30] * 2},
        {
            "host": [0] * len(demands),
            "memory_bytes": [1 << 30] * len(demands),
            "demand_cpu_mhz": list(demands),
        },
    )


def test_scores_are_what_is_delivered():
    assert vm_scores(two_hosts(10_000, 10_000), demand_spread=0).vm.tolist() == [50, 50]
    # even spread from 0 to 20 GHz on a host of 10: a quarter of 10 is not delivered
    found = vm_scores(two_hosts(5000, 5000))
    assert found.vm == pytest.approx([75, 75])
    assert found.cluster == pytest.approx(75)
    assert found.buckets.tolist() == [0, 0, 0, 2, 0]
    assert vm_scores(two_hosts(1000)).vm.tolist() == [100]


def test_a_crowded_vm_moves():
    (move,) = improve_scores(two_hosts(5000, 5000))
    assert (move.vm, move.source, move.target) == (0, 0, 1)
    assert move.before == pytest.approx(75)
    assert 99 < move.after < 100
    assert "score rises from 75.0" in move.reason
    assert improve_scores(two_hosts(1000)) == []
    with pytest.raises(InvalidValueError, match="negative"):
        improve_scores(two_hosts(1000), max_moves=-1)


@pytest.mark.parametrize("seed", range(6))
def test_moves_keep_rules_and_raise_the_clusters_score(seed: int):
    cluster = random_cluster(seed, hosts=5, vms=16, reserved=0.2)
    before = vm_scores(cluster)
    for move in improve_scores(cluster):
        if cluster.rules.enabled.all():
            assert may_be_on(cluster, move.vm, move.target)
        cluster.vms.host[move.vm] = move.target
        assert move.after > move.before
    after = vm_scores(cluster)
    assert after.cluster >= before.cluster - 1e-9
    assert after.buckets.sum() == np.isfinite(after.vm).sum()
