"""Policies by name with their parameters, as a scenario file has them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from pyvirt._core.sched.owner import POLICIES
from pyvirt.sched.fields import Fields
from pyvirt.sched.numa import Numa
from pyvirt.sched.policies import PLUGS
from pyvirt.sched.pool_fields import SECOND, ScenarioPool, pool_rows

__all__ = [
    "INLINED",
    "WEIGHTS_ONLY",
    "check_policy",
    "make_policy",
    "read_policy",
    "read_vm_params",
    "reserved",
    "takes_numa",
    "takes_pools",
    "vm_params",
]

#: Inlined policies, and the arguments of `Scheduler` that are theirs.
INLINED: dict[str, tuple[str, ...]] = {
    name: ("linux_tick_ns",) if name == "eevdf" else () for name in POLICIES
}
#: Policies that read neither the reservation nor the limit of a VM; some have parameters for that.
WEIGHTS_ONLY = frozenset(
    (*INLINED, "bvt", "cfs", "fixed", "credit", "credit2", "rtds", "hyperv", "percpu")
)
MOST = 1 << 50


def check_policy(name: str) -> str:
    """Refuse the name of a policy that is not there, with the nearest that is."""
    Fields({"policy": name}, "", (), {}).choice("policy", _names())
    return name


def make_policy(
    name: str,
    options: Mapping[str, Any],
    pools: Sequence[ScenarioPool] = (),
    numa: Numa | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Give what `Scheduler` takes as its policy, and arguments beside it.

    A policy that knows of no pools, or no home nodes, is made without them.
    """
    if name in INLINED:
        return name, dict(options)
    make: Any = PLUGS[name]
    tables: dict[str, Any] = {}
    if pools and takes_pools(name):
        tables["pools"] = pool_rows(pools)
    if numa is not None and takes_numa(name):
        tables["numa"] = numa
    return make(**options, **tables), {}


def reserved(name: str, options: Mapping[str, Any], params: Mapping[str, int], vcpus: int) -> int:
    """Give the CPU time in ns per second that a policy's own parameters of a VM set aside.

    It is Hyper-V's reserve, of each vCPU, if the policy is to check it.
    """
    if name != "hyperv" or not options.get("admission", True):
        return 0
    return params.get("reserve", 0) * vcpus * SECOND // 100


def takes_pools(name: str) -> bool:
    """Say whether a policy has a tree of pools, in which VMs are by their parameter ``pool``."""
    return "pool" in vm_params(name) and "pools" in _parameters(name)


def takes_numa(name: str) -> bool:
    """Say whether a policy can give VMs home nodes."""
    return "numa" in _parameters(name)


def vm_params(name: str) -> Mapping[str, tuple[int, int, int]]:
    """Give default, least and most of a policy's parameters of virtual machines."""
    return {} if name in INLINED else PLUGS[name]().vm_params


def read_policy(top: Fields) -> tuple[str, dict[str, Any]]:
    """Read the key `policy`: a name, or a table with a name and parameters."""
    if not isinstance(top.raw("policy"), dict):
        return top.choice("policy", _names()) or "stride", {}
    fields = top.table("policy")
    assert fields is not None
    name = fields.choice("name", _names(), "the policy's name") or ""
    options = {}
    for parameter, default in _parameters(name).items():
        if parameter in ("pools", "numa"):
            continue  # they have tables of their own
        value = _option(fields, parameter, default)
        if value is not None:
            options[parameter] = value
    fields.finish(f"the policy {name}")
    fields.said(None, lambda: make_policy(name, options))
    return name, options


def read_vm_params(fields: Fields, policy: str) -> dict[str, int]:
    """Read what a policy declares as parameters of virtual machines."""
    given = {}
    for name, (_, least, most) in vm_params(policy).items():
        if name == "pool":
            continue
        if name.endswith("_ns"):
            value = fields.time(name.removesuffix("_ns"), least)
        else:
            value = fields.integer(name, least, most)
        if value is not None:
            given[name] = value
    return given


def _parameters(name: str) -> dict[str, Any]:
    """Give a policy's parameters with their defaults, whose kind a file's values must have."""
    if name in INLINED:
        return dict.fromkeys(INLINED[name])
    known = PLUGS[name]().parameters
    if known:
        return dict(known)
    try:
        arguments = inspect.signature(PLUGS[name]).parameters.values()
    except ValueError:  # a compiled class does not tell
        return {}
    return {each.name: each.default for each in arguments if each.default is not each.empty}


def _names() -> list[str]:
    return [*INLINED, *PLUGS]


def _option(fields: Fields, parameter: str, default: Any) -> Any:
    """Read a parameter of the kind that its default has; times have no ``_ns`` in their key."""
    if parameter.endswith("_ns"):
        return fields.time(parameter.removesuffix("_ns"), 0)
    if isinstance(default, bool):
        return fields.flag(parameter) if parameter in fields else fields.raw(parameter)
    if isinstance(default, str):
        return fields.text(parameter)
    if isinstance(default, float):
        return fields.number(parameter)
    return fields.integer(parameter, -MOST, MOST)
