"""Which host can take a VM: entitlements of many hosts in one Numba kernel."""

import numpy as np
from numba import njit

from pyvirt.entitlement import addresses
from pyvirt.entitlement.jit import SCRATCH, divide


@njit(cache=True, nogil=True)
def shortfalls(solver, capacity, first, shares, floors, demands, vm_shares, vm_demand):
    """Give what a VM would lack of its demand on each host.

    The VMs of host h stand at ``first[h]`` to ``first[h + 1]``. The solver's address is an
    argument, so that the kernel can be cached.
    """
    hosts = len(capacity)
    most = 1
    for h in range(hosts):
        most = max(most, first[h + 1] - first[h] + 1)
    s, f, d, given = np.zeros(most), np.zeros(most), np.zeros(most), np.zeros(most)
    scratch = np.zeros(SCRATCH * most)
    lacking = np.zeros(hosts)
    for h in range(hosts):
        n = first[h + 1] - first[h]
        s[:n] = shares[first[h] : first[h + 1]]
        f[:n] = floors[first[h] : first[h + 1]]
        d[:n] = demands[first[h] : first[h + 1]]
        s[n], f[n], d[n] = vm_shares, 0.0, vm_demand
        n += 1
        divide(solver, s[:n], f[:n], d[:n], capacity[h], given[:n], scratch)
        lacking[h] = vm_demand - given[n - 1]
    return lacking


def main() -> None:
    """Three hosts of 6000 MHz with one, two and three VMs; a VM comes that wants 2500 MHz."""
    first = np.array([0, 1, 3, 6])
    demands = np.array([1000.0, 4000, 2000, 3000, 3000, 3000])
    floors = np.array([0.0, 3000, 0, 0, 0, 0])
    lacking = shortfalls(
        addresses()["divide"],
        np.full(3, 6000.0),
        first,
        np.full(6, 1000.0),
        floors,
        demands,
        1000.0,
        2500.0,
    )
    print(lacking.tolist())


if __name__ == "__main__":
    main()
