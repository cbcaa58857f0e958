"""Space on datastores: thin and thick disks, promises beyond the capacity, and its end.

Rules: vSphere Storage 6.7, "Handling Datastore Over-Subscription" (space is given first come, first
served) and "Storage Thin Provisioning" (a VM whose write finds none is paused until there is some).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.cluster.checks import column, whole
from pyvirt.errors import AdmissionError, InvalidTypeError, InvalidValueError
from pyvirt.spec import ClusterSpec
from pyvirt.spec.storage import DATASTORES
from pyvirt.spec.vm import PROVISIONINGS

__all__ = ["KEPT", "Datastores"]

MIB = 2**20
_MOST = 2**53

#: What a kind of datastore does not give to growing disks: VMFS stops at 100 MB (Broadcom's
#: knowledge base, 318856; taken for MiB), of the others nothing is documented.
KEPT = {"vmfs": 100 * MIB, "nfs": 0, "local": 100 * MIB}

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

STORE = np.dtype([("capacity", "i8"), ("kept", "i8"), ("used", "i8"), ("provisioned", "i8")])
DISK = np.dtype(
    [
        ("store", "i8"),  # -1: deleted
        ("size", "i8"),
        ("used", "i8"),  # written, of a thin one; its size, of others
        ("taken", "i8"),  # on the datastore: `used` in whole blocks
        ("thin", "i8"),
        ("wanted", "i8"),  # bytes of the write for which it waits
        ("since", "i8"),  # the order in which it began to wait; 0: it does not
    ]
)


class Datastores:
    """Datastores and the disks on them.

    Parameters
    ----------
    block : int
        Bytes by which thin disks grow (1 MiB, the block of VMFS 5 and 6: recalled).

    Examples
    --------
    >>> from pyvirt.machine.paths import Datastores
    >>> GIB = 1 << 30
    >>> stores = Datastores()
    >>> store = stores.add("store", 100 * GIB, kind="nfs")
    >>> disks = [stores.add_disk(f"d{k}", store, 60 * GIB, "thin") for k in range(3)]
    >>> stores.overcommitment(store)
    1.8
    >>> stores.write(disks, 40 * GIB).tolist()
    [True, True, False]
    >>> stores.extend(store, 50 * GIB)
    >>> stores.retry()
    [2]
    """

    def __init__(self, *, block: int = MIB) -> None:
        self.block = whole(block, "block", 1, 2**30)
        self.names: list[str] = []
        self.kinds: list[str] = []
        self.disk_names: list[str] = []
        self._stores = np.zeros(0, STORE)
        self._disks = np.zeros(0, DISK)
        self._waits = 0

    @classmethod
    def from_spec(cls, spec: ClusterSpec, **options: Any) -> Datastores:
        """Make those of a description, with the disks of its VMs, named ``vm/disk``.

        Disks without a datastore are left out.

        Raises
        ------
        AdmissionError
            Disks that do not fit.
        """
        if not isinstance(spec, ClusterSpec):
            raise InvalidTypeError(f"spec must be a ClusterSpec, not {spec!r:.80}")
        made = cls(**options)
        numbers = {one.name: made.add(one.name, one.capacity, one.kind) for one in spec.datastores}
        for vm in spec.vms:
            for disk in vm.disks:
                if disk.datastore in numbers:
                    made.add_disk(
                        f"{vm.name}/{disk.name}",
                        numbers[disk.datastore],
                        disk.size,
                        disk.provisioning,
                        used=disk.used or 0,
                    )
        return made

    def add(self, name: str, capacity: int, kind: str = "vmfs", *, kept: int | None = None) -> int:
        """Add a datastore.

        Parameters
        ----------
        name : str
            Unique.
        capacity : int
            Bytes.
        kind : {"vmfs", "nfs", "local"}
        kept : int, optional
            Bytes that growing disks do not get; by default as in `KEPT`, at most the capacity.

        Returns
        -------
        int
            Its number.
        """
        if not name or name in self.names:
            raise InvalidValueError(f"name must be text that is new, got {name!r:.80}")
        if kind not in DATASTORES:
            raise InvalidValueError(f"kind must be one of {', '.join(DATASTORES)}, got {kind!r}")
        size = whole(capacity, "capacity", 0, _MOST)
        keep = min(KEPT[kind], size) if kept is None else whole(kept, "kept", 0, size)
        self._stores = np.append(self._stores, np.array([(size, keep, 0, 0)], STORE))
        self.names.append(name)
        self.kinds.append(kind)
        return len(self.names) - 1

    def add_disk(
        self, name: str, store: int, size: int, provisioning: str = "thick", *, used: int = 0
    ) -> int:
        """Add a disk.

        Parameters
        ----------
        name : str
        store : int
        size : int
            Bytes.
        provisioning : {"thin", "thick", "eager"}
            A thin disk takes space as it is written, the others all of theirs at once.
        used : int
            Bytes of a thin disk that are written already.

        Returns
        -------
        int
            Its number.

        Raises
        ------
        AdmissionError
            There is less space than it takes at once.
        """
        at = self._store(store)
        if provisioning not in PROVISIONINGS:
            raise InvalidValueError(
                f"provisioning must be one of {', '.join(PROVISIONINGS)}, got {provisioning!r:.80}"
            )
        whole(size, "size", 0, _MOST)
        whole(used, "used", 0, size)
        thin = provisioning == "thin"
        written = used if thin else size
        taken = self._blocks(written)
        self._admit(at, taken, str(name))
        row = (at, size, written, taken, thin, 0, 0)
        self._disks = np.append(self._disks, np.array([row], DISK))
        self.disk_names.append(str(name))
        self._stores["used"][at] += taken
        self._stores["provisioned"][at] += self._blocks(size)
        return len(self.disk_names) - 1

    def write(self, disks: npt.ArrayLike, nbytes: npt.ArrayLike) -> Bools:
        """Let disks be written where they were not yet, each with one write, in the order given.

        Parameters
        ----------
        disks : array_like of int
            Each at most once.
        nbytes : array_like of int
            New bytes; beyond a disk's size nothing is new.

        Returns
        -------
        ndarray of bool
            Whether the write went through. A thin disk whose datastore has too little is `stopped`
            and takes no write until `retry`; smaller writes of others may still go through.
        """
        rows = column(disks, "disks", np.size(disks), 0, len(self.disk_names) - 1)
        new = column(nbytes, "nbytes", rows.size, 0, _MOST)
        if np.unique(rows).size < rows.size:
            raise InvalidValueError("disks must name each at most once in a call")
        d = self._disks
        if (d["store"][rows] < 0).any():
            gone = int(rows[np.argmax(d["store"][rows] < 0)])
            raise InvalidValueError(f"disks must not be deleted, got {self.disk_names[gone]!r}")
        written = np.minimum(d["used"][rows] + new, d["size"][rows])
        growth = np.where(d["thin"][rows] == 1, self._blocks(written) - d["taken"][rows], 0)
        fits = d["since"][rows] == 0
        stores = d["store"][rows]
        for store in np.unique(stores[growth > 0]).tolist():
            mine = np.flatnonzero((stores == store) & fits)
            free = self.free(store)
            if growth[mine].sum() <= free:
                continue
            for k in mine.tolist():  # first come, first served
                fits[k] = growth[k] <= free
                free -= int(growth[k]) if fits[k] else 0
        done = rows[fits]
        d["used"][done] = np.where(d["thin"][done] == 1, written[fits], d["used"][done])
        d["taken"][done] += growth[fits]
        np.add.at(self._stores["used"], stores[fits], growth[fits])
        for k in np.flatnonzero(~fits & (d["since"][rows] == 0)).tolist():
            self._waits += 1
            d["wanted"][rows[k]], d["since"][rows[k]] = new[k], self._waits
        return fits

    def retry(self) -> list[int]:
        """Try again the writes of disks that are stopped, in the order in which they stopped.

        Returns
        -------
        list of int
            The disks that go on.
        """
        d = self._disks
        order = [int(k) for k in np.argsort(d["since"], kind="stable") if d["since"][k] > 0]
        gone_on = []
        for k in order:
            since = int(d["since"][k])
            d["since"][k] = 0
            if self.write([k], [int(d["wanted"][k])])[0]:
                gone_on.append(k)
            else:
                d["since"][k] = since  # it does not lose its place
        return gone_on

    def extend(self, store: int, nbytes: int) -> None:
        """Add space to a datastore."""
        at = self._store(store)
        most = _MOST - int(self._stores["capacity"][at])
        self._stores["capacity"][at] += whole(nbytes, "nbytes", 0, most)

    def delete(self, disk: int) -> None:
        """Take a disk away, and give its space back."""
        row = self._disks[self._disk(disk)]
        self._stores["used"][row["store"]] -= row["taken"]
        self._stores["provisioned"][row["store"]] -= self._blocks(int(row["size"]))
        row["store"], row["since"] = -1, 0

    def unmap(self, disk: int, nbytes: int) -> None:
        """Give back space of a thin disk that its guest has freed, in whole blocks."""
        row = self._disks[self._disk(disk)]
        if not row["thin"]:
            raise InvalidValueError(f"disk must be thin, got {self.disk_names[disk]!r}")
        row["used"] -= whole(nbytes, "nbytes", 0, int(row["used"]))
        taken = self._blocks(int(row["used"]))
        self._stores["used"][row["store"]] -= row["taken"] - taken
        row["taken"] = taken

    def move(self, disk: int, to_store: int, provisioning: str | None = None) -> None:
        """Move a disk to another datastore, as storage vMotion does.

        Parameters
        ----------
        disk, to_store : int
        provisioning : {"thin", "thick", "eager"}, optional
            What it is there; by default what it was. A thick disk made thin still takes all.

        Raises
        ------
        AdmissionError
            It does not fit; it is where it was.
        """
        row = self._disks[self._disk(disk)]
        to = self._store(to_store)
        if to == row["store"]:
            raise InvalidValueError(f"to_store must be another datastore, got {to}")
        if provisioning is not None and provisioning not in PROVISIONINGS:
            raise InvalidValueError(
                f"provisioning must be one of {', '.join(PROVISIONINGS)}, got {provisioning!r:.80}"
            )
        thin = bool(row["thin"]) if provisioning is None else provisioning == "thin"
        used = int(row["used"]) if thin else int(row["size"])
        taken = self._blocks(used)
        self._admit(to, taken, self.disk_names[disk])
        size = self._blocks(int(row["size"]))
        for at, sign, space in ((int(row["store"]), -1, int(row["taken"])), (to, 1, taken)):
            self._stores["used"][at] += sign * space
            self._stores["provisioned"][at] += sign * size
        row["store"], row["thin"], row["used"], row["taken"] = to, thin, used, taken

    # --- what is ----------------------------------------------------------------------------

    @property
    def stores(self) -> npt.NDArray[Any]:
        """The datastores, a record each: `capacity`, `kept`, `used`, `provisioned`, in bytes."""
        view = self._stores.view()
        view.flags.writeable = False
        return view

    @property
    def disks(self) -> npt.NDArray[Any]:
        """The disks, a record each: `store` (-1: deleted), `size`, `used`, `taken`, `thin`."""
        view = self._disks.view()
        view.flags.writeable = False
        return view

    @property
    def stopped(self) -> Bools:
        """Which disks wait for space; their VMs are paused."""
        return self._disks["since"] > 0

    def free(self, store: int) -> int:
        """Give the bytes that disks can still take."""
        row = self._stores[self._store(store)]
        return max(0, int(row["capacity"] - row["kept"] - row["used"]))

    def overcommitment(self, store: int) -> float:
        """Give what was promised to disks over the capacity; above 1 it may run out."""
        row = self._stores[self._store(store)]
        if row["capacity"] == 0:
            return 0.0 if row["provisioned"] == 0 else float("inf")
        return float(row["provisioned"] / row["capacity"])

    def copy(self) -> Datastores:
        """Give independent datastores with the same disks."""
        made = Datastores(block=self.block)
        made.names, made.kinds = list(self.names), list(self.kinds)
        made.disk_names = list(self.disk_names)
        made._stores, made._disks = self._stores.copy(), self._disks.copy()
        made._waits = self._waits
        return made

    def __repr__(self) -> str:
        return f"<Datastores: {len(self.names)} with {len(self.disk_names)} disks>"

    def _blocks(self, nbytes: Any) -> Any:
        return -(-nbytes // self.block) * self.block

    def _store(self, store: int) -> int:
        return whole(store, "store", 0, len(self.names) - 1)

    def _disk(self, disk: int) -> int:
        k = whole(disk, "disk", 0, len(self.disk_names) - 1)
        if self._disks["store"][k] < 0:
            raise InvalidValueError(f"disk must not be deleted, got {self.disk_names[k]!r}")
        return k

    def _admit(self, store: int, taken: int, client: str) -> None:
        free = self.free(store)
        if taken > free:
            raise AdmissionError(self.names[store], taken, free, client)
