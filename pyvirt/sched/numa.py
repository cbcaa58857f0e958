"""How NUMA home nodes are given and changed, for policies that have them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Numa"]


@dataclass(frozen=True, slots=True)
class Numa:
    """Home nodes of virtual machines: what a policy is given to switch them on.

    Attributes
    ----------
    rebalance_ns : int, default 2 s
        Time between two looks at the nodes, up to 60 s (vSphere: ``Numa.RebalancePeriod``).
    threshold_percent : int, default 10
        Of a node: an imbalance up to that is left alone (vSphere: ``Numa.MigImbalanceThreshold``).
    remote_penalty : float, default 0.3
        What a world loses of its speed while all its memory is on other nodes; less in proportion
        to less. No published figure: it depends on machine and workload.
    drain_pages : int, default 2560
        Pages of 4 KiB of a virtual machine, or of each of its parts, that follow it to a new home
    drain_ns : int, default 10 ms
        in this time, up to 60 s: 1,000 MiB a second by default. No published figure.
    prefer_threads : bool, default False
        A virtual machine is split over nodes if it has more vCPUs than a node has threads, not
        cores (vSphere: ``numa.vcpu.preferHT``).

    Notes
    -----
    As VMware's "vSphere Resource Management" (6.7, "Using NUMA Systems with ESXi") describes it: a
    virtual machine gets a home node, on which its vCPUs run and its memory lies; every two
    seconds the nodes are examined, and a virtual machine may move, whose pages then follow. A wide
    one is split into parts that each have a home. Homes are given where there are 2 to 16 nodes of
    at least 2 cores and 4 cores in all, and to virtual machines without affinities.

    What VMware does not publish is decided here: the home is the node with the fewest vCPUs for
    its CPUs. A node is owed what its virtual machines are entitled to and did not get since the
    last look; nobody is entitled to more than it ran and was ready for, and what it leaves is the
    others'. If the node that is owed most
    and the one that is owed least differ by more than the threshold of the smaller one, the virtual
    machine moves, or the part, that leaves the least difference of what the two have to
    give out for each CPU; none if that is no less than before, and one at a time. A virtual machine
    has at most eight parts. Memory is never short on a node.
    """

    rebalance_ns: int = 2_000_000_000
    threshold_percent: int = 10
    remote_penalty: float = 0.3
    drain_pages: int = 2560
    drain_ns: int = 10_000_000
    prefer_threads: bool = False
