"""Traces of addresses and system events: readers and writers, in memory that does not grow.

`open` reads any format in chunks of events, `read` all of it, `create` and `write` write.
`read_demand` and `read_demands` read demand over time. `DemandTraces` holds the demand of many
machines, which `read_planetlab`, `read_bitbrains` and `read_google` give, and `planetlab_demand`
and `classes_demand` make up.
"""

from pyvirt.traces.bitbrains import read_bitbrains
from pyvirt.traces.champsim import CHAMPSIM_DTYPE, CLOUDSUITE_DTYPE
from pyvirt.traces.demand import read_demand, read_demands
from pyvirt.traces.demands import DemandTraces
from pyvirt.traces.events import EVENT_DTYPE, Arg, Events, Op, accesses, is_access
from pyvirt.traces.formats import FORMATS
from pyvirt.traces.google import read_google
from pyvirt.traces.planetlab import read_planetlab
from pyvirt.traces.reader import TraceReader, open, read
from pyvirt.traces.summary import Summary, summarise
from pyvirt.traces.synthetic import (
    DEMAND_CLASSES,
    PLANETLAB_DAYS,
    DemandClass,
    classes_demand,
    planetlab_demand,
)
from pyvirt.traces.writer import TraceWriter, create, write

__all__ = [
    "CHAMPSIM_DTYPE",
    "CLOUDSUITE_DTYPE",
    "DEMAND_CLASSES",
    "EVENT_DTYPE",
    "FORMATS",
    "PLANETLAB_DAYS",
    "Arg",
    "DemandClass",
    "DemandTraces",
    "Events",
    "Op",
    "Summary",
    "TraceReader",
    "TraceWriter",
    "accesses",
    "classes_demand",
    "create",
    "is_access",
    "open",
    "planetlab_demand",
    "read",
    "read_bitbrains",
    "read_demand",
    "read_demands",
    "read_google",
    "read_planetlab",
    "summarise",
    "write",
]
