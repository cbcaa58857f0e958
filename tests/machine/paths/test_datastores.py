"""Space: what is taken, what was promised, who is stopped when it ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import AdmissionError, PyvirtError
from pyvirt.machine.paths import Datastores
from pyvirt.spec import ClusterSpec, DatastoreSpec, DiskSpec, VMSpec

MIB, GIB = 1 << 20, 1 << 30


def two(capacity=10 * GIB):
    stores = Datastores()
    return stores, stores.add("a", capacity, "nfs"), stores.add("b", capacity, "vmfs")


def test_thick_disks_take_all_and_thin_ones_what_is_written():
    stores, a, _ = two()
    thick = stores.add_disk("thick", a, 4 * GIB)
    thin = stores.add_disk("thin", a, 8 * GIB, "thin", used=100)
    assert stores.free(a) == 6 * GIB - MIB
    assert stores.overcommitment(a) == 1.2
    assert stores.write([thick, thin], [GIB, MIB]).tolist() == [True, True]
    assert stores.disks["taken"].tolist() == [4 * GIB, 2 * MIB]
    assert stores.disks["used"].tolist() == [4 * GIB, MIB + 100]
    # beyond its size nothing is new
    stores.write([thin], [100 * GIB])
    assert not stores.stopped[thick]
    assert stores.stopped[thin]


def test_vmfs_keeps_100_mib():
    stores, a, b = two(200 * MIB)
    assert (stores.free(a), stores.free(b)) == (200 * MIB, 100 * MIB)
    with pytest.raises(AdmissionError, match=r"'b' needs 105906176 and has 104857600: .*'d'"):
        stores.add_disk("d", b, 101 * MIB)
    assert len(stores.disks) == 0


def test_who_finds_no_space_is_stopped_until_there_is():
    stores, a, _ = two(100 * MIB)
    disks = [stores.add_disk(f"d{k}", a, 90 * MIB, "thin") for k in range(4)]
    assert stores.write(disks, [60 * MIB, 50 * MIB, 45 * MIB, 40 * MIB]).tolist() == [
        True,
        False,
        False,
        True,
    ]
    assert stores.stopped.tolist() == [False, True, True, False]
    assert stores.write([disks[2]], [MIB]).tolist() == [False]  # a paused VM does not go on
    assert stores.retry() == []
    stores.extend(a, 45 * MIB)
    assert stores.retry() == [2]  # the first is tried first, and is too large
    stores.delete(disks[0])
    assert stores.retry() == [1]
    assert stores.disks["taken"].tolist()[1:] == [50 * MIB, 45 * MIB, 40 * MIB]
    assert stores.stores["used"].tolist() == [135 * MIB, 0]
    with pytest.raises(PyvirtError, match="disk must not be deleted, got 'd0'"):
        stores.delete(disks[0])
    with pytest.raises(PyvirtError, match="disks must not be deleted, got 'd0'"):
        stores.write([1, 0], 1)


def test_moves_change_the_provisioning():
    stores, a, b = two()
    disk = stores.add_disk("d", a, 8 * GIB, "thin", used=GIB)
    stores.move(disk, b)
    assert stores.stores["used"].tolist() == [0, GIB]
    stores.move(disk, a, "thick")
    assert stores.stores["used"].tolist() == [8 * GIB, 0]
    stores.add_disk("e", b, 3 * GIB)
    with pytest.raises(AdmissionError):
        stores.move(disk, b)
    assert stores.stores["used"].tolist() == [8 * GIB, 3 * GIB]
    assert stores.stores["provisioned"].tolist() == [8 * GIB, 3 * GIB]


def test_freed_space_comes_back():
    stores, a, _ = two()
    disk = stores.add_disk("d", a, 8 * GIB, "thin", used=10 * MIB)
    stores.unmap(disk, 5 * MIB + 1)
    assert stores.disks["taken"][disk] == 5 * MIB
    assert stores.stores["used"][a] == 5 * MIB
    with pytest.raises(PyvirtError, match="disk must be thin, got 't'"):
        stores.unmap(stores.add_disk("t", a, GIB), 1)


def test_from_a_description():
    spec = ClusterSpec(
        datastores=[DatastoreSpec("a", 10 * GIB, "nfs"), DatastoreSpec("b", GIB)],
        vms=[
            VMSpec(
                "web",
                disks=[
                    DiskSpec("0", 2 * GIB, "a"),
                    DiskSpec("1", 20 * GIB, "a", "thin", GIB),
                    DiskSpec("2", GIB),
                ],
            )
        ],
    )
    stores = Datastores.from_spec(spec)
    assert stores.disk_names == ["web/0", "web/1"]
    assert stores.stores["used"].tolist() == [3 * GIB, 0]
    assert stores.overcommitment(0) == 2.2


BAD = {
    "block must be at least 1": lambda s: Datastores(block=0),
    "name must be text that is new, got 'a'": lambda s: s.add("a", 1),
    "kind must be one of vmfs, nfs, local, got 'tape'": lambda s: s.add("c", 1, "tape"),
    "capacity must be at least 0": lambda s: s.add("c", -1),
    "kept must be at least 0 and at most 5": lambda s: s.add("c", 5, kept=6),
    "store must be at least 0 and at most 1, got 2": lambda s: s.add_disk("e", 2, 1),
    "provisioning must be one of thin, thick, eager": lambda s: s.add_disk("e", 0, 1, "fat"),
    "used must be at least 0 and at most 1, got 2": lambda s: s.add_disk("e", 0, 1, used=2),
    "disks must name each at most once": lambda s: s.write([0, 0], 1),
    r"disks, row 0: must be in \[0, 0\], got 1": lambda s: s.write([1], 1),
    r"nbytes, row 0: must be in .*, got -1": lambda s: s.write([0], -1),
    "to_store must be another datastore, got 0": lambda s: s.move(0, 0),
    "provisioning must be one of thin, thick, eager, got 5": lambda s: s.move(0, 1, 5),
    "disk must be at least 0 and at most 0, got 1": lambda s: s.delete(1),
    "nbytes must be at least 0": lambda s: s.extend(0, -1),
    "spec must be a ClusterSpec": lambda s: Datastores.from_spec(5),
}


@pytest.mark.parametrize("message", BAD)
def test_refused(message):
    stores, a, _ = two()
    stores.add_disk("d", a, GIB, "thin")
    with pytest.raises(PyvirtError, match=message):
        BAD[message](stores)
    assert stores.stores["used"].tolist() == [0, 0]
    assert len(stores.names) == 2


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_space_is_conserved(seed):
    """Whatever happens, what is used is the sum over disks, recounted one by one, and fits."""
    rng = np.random.default_rng(seed)
    stores = Datastores(block=int(rng.choice([1, 7, 64])))
    for k in range(3):
        stores.add(f"s{k}", int(rng.integers(0, 3000)), str(rng.choice(["nfs", "vmfs"])), kept=0)
    live, written = [], {}
    for _ in range(40):
        what = rng.integers(6)
        try:
            if what <= 1 or not live:
                size = int(rng.integers(0, 1000))
                kind = str(rng.choice(["thin", "thin", "thick"]))
                used = int(rng.integers(0, size + 1))
                disk = stores.add_disk("d", int(rng.integers(3)), size, kind, used=used)
                live.append(disk)
                written[disk] = used if kind == "thin" else size
            elif what == 2:
                some = rng.permutation(live)[: int(rng.integers(1, 5))]
                new = rng.integers(0, 500, some.size)
                went = stores.write(some, new)
                for disk, more, fine in zip(
                    some.tolist(), new.tolist(), went.tolist(), strict=True
                ):
                    if fine:
                        size = int(stores.disks["size"][disk])
                        written[disk] = min(written[disk] + more, size)
            elif what == 3:
                disk = live[int(rng.integers(len(live)))]
                stores.move(disk, int(rng.integers(3)))
            elif what == 4:
                disk = live.pop(int(rng.integers(len(live))))
                stores.delete(disk)
                del written[disk]
            else:
                stores.extend(int(rng.integers(3)), int(rng.integers(300)))
                wanted = stores.disks["wanted"].copy()
                for disk in stores.retry():
                    size = int(stores.disks["size"][disk])
                    written[disk] = min(written[disk] + int(wanted[disk]), size)
        except PyvirtError:
            continue
        for k in range(3):
            mine = [d for d in live if stores.disks["store"][d] == k]
            used = sum(-(-written[d] // stores.block) * stores.block for d in mine)
            sizes = [int(stores.disks["size"][d]) for d in mine]
            assert stores.stores["used"][k] == used <= stores.stores["capacity"][k]
            assert stores.stores["provisioned"][k] == sum(
                -(-size // stores.block) * stores.block for size in sizes
            )
