"""What a user describes, as plain data: frozen, checked, with units at the edge."""

from pyvirt.spec.base import Spec
from pyvirt.spec.cluster import ClusterSpec, HostSpec, PoolSpec, RuleSpec, VMSpec
from pyvirt.spec.files import load_cluster

__all__ = ["ClusterSpec", "HostSpec", "PoolSpec", "RuleSpec", "Spec", "VMSpec", "load_cluster"]
