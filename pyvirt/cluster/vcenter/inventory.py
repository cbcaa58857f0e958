"""The inventory: a tree of folders, a cluster, its hosts, pools and virtual machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pyvirt.cluster.tables import NONE
from pyvirt.errors import InvalidValueError

if TYPE_CHECKING:
    from pyvirt.cluster.model import Cluster

__all__ = ["Inventory", "Node"]

Kind = Literal["folder", "datacenter", "cluster", "host", "pool", "vm"]


@dataclass(frozen=True, slots=True)
class Node:
    """A place in the tree.

    Attributes
    ----------
    path : str
        From the root, as ``"/lab/host/cluster/h0"``.
    kind : {"folder", "datacenter", "cluster", "host", "pool", "vm"}
        What stands there.
    row : int
        Of the cluster's table of hosts, pools or VMs; -1 for what has none.
    children : tuple of str
        Paths of what is below it.
    """

    path: str
    kind: Kind
    row: int
    children: tuple[str, ...]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]


class Inventory:
    """A view of a cluster as vCenter shows it: hosts and pools in one tree, VMs in another.

    Parameters
    ----------
    cluster : Cluster
        What is shown; the tree is made anew whenever it is asked for.
    datacenter : str
        The name of the datacenter.

    Notes
    -----
    Below the datacenter stand the folders ``host``, with the cluster, its hosts and below its
    ``Resources`` the pools, and ``vm``. A slash in a name is written ``%2f``, as vSphere does.
    """

    def __init__(self, cluster: Cluster, datacenter: str) -> None:
        self.cluster = cluster
        self.top = f"/{quoted(datacenter)}"
        self.of_cluster = f"{self.top}/host/{quoted(cluster.name)}"

    def host(self, row: int) -> str:
        """Give the path of a host."""
        return f"{self.of_cluster}/{quoted(self.cluster.hosts.name[row])}"

    def vm(self, row: int) -> str:
        """Give the path of a VM."""
        return f"{self.top}/vm/{quoted(self.cluster.vms.name[row])}"

    def pool(self, row: int) -> str:
        """Give the path of a pool."""
        parts = []
        while row != NONE:
            parts.append(quoted(self.cluster.pools.name[row]))
            row = int(self.cluster.pools.parent[row])
        return "/".join([f"{self.of_cluster}/Resources", *reversed(parts)])

    def walk(self) -> Iterator[Node]:
        """Go through the tree from the root, what is above first."""
        c = self.cluster
        hosts = tuple(self.host(row) for row in range(len(c.hosts)))
        vms = tuple(self.vm(row) for row in range(len(c.vms)))
        pools = [self.pool(row) for row in range(len(c.pools))]
        below: dict[int, list[str]] = {}
        for row, parent in enumerate(c.pools.parent.tolist()):
            below.setdefault(parent, []).append(pools[row])
        resources = f"{self.of_cluster}/Resources"
        yield Node(self.top, "datacenter", -1, (f"{self.top}/host", f"{self.top}/vm"))
        yield Node(f"{self.top}/host", "folder", -1, (self.of_cluster,))
        yield Node(self.of_cluster, "cluster", -1, (*hosts, resources))
        for row, path in enumerate(hosts):
            yield Node(path, "host", row, ())
        yield Node(resources, "pool", NONE, tuple(below.get(NONE, ())))
        for row, path in enumerate(pools):
            yield Node(path, "pool", row, tuple(below.get(row, ())))
        yield Node(f"{self.top}/vm", "folder", -1, vms)
        for row, path in enumerate(vms):
            yield Node(path, "vm", row, ())

    def find(self, path: str) -> Node:
        """Give what stands at a path.

        Raises
        ------
        InvalidValueError
            Nothing does.
        """
        for node in self.walk():
            if node.path == path:
                return node
        raise InvalidValueError(f"nothing stands at {path!r:.200} of the inventory")


def quoted(name: str) -> str:
    """Write a name so that it is one part of a path."""
    return name.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")
