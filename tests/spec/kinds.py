"""Random specifications of every kind, made from what the fields accept."""

import dataclasses

from hypothesis import reject
from hypothesis import strategies as st

import pyvirt as pv
from pyvirt import spec
from pyvirt.spec.base import fields_of
from pyvirt.spec.host import HYPERVISORS

KINDS = [
    kind
    for name in spec.__all__
    if isinstance(kind := getattr(spec, name), type) and kind not in (spec.Spec, spec.Claimant)
]
NAMES = st.sampled_from(["a", "b", "h0", "web-1", "Büro 2", 'say "x" \\ y', "ɑ\u2028\x7f", "a/b"])
REFERENCES = st.sampled_from(["", "a", "b"])
TEXT = st.text(st.characters(codec="utf-8"), max_size=6)


def values(schema, depth):
    """What a field's schema accepts, as plain data or specifications."""
    if "spec" in schema:
        return specs(schema["spec"], depth + 1)
    if "specs" in schema:
        most = 2 if depth < 2 else 0
        return st.lists(specs(schema["specs"], depth + 1), max_size=most)
    if "anyOf" in schema:
        plain = [each for each in schema["anyOf"] if "pattern" not in each]
        return st.one_of([values(each, depth) for each in plain])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema["type"]
    if kind == "integer":
        least, most = schema["minimum"], schema["maximum"]
        small = st.integers(least, min(most, least + 4))
        return small | st.integers(least, most)
    if kind == "number":
        return st.floats(schema["minimum"], schema.get("maximum", 1e6))
    if kind == "boolean":
        return st.booleans()
    if kind == "string":
        return NAMES if "pattern" in schema else REFERENCES | TEXT
    items = schema.get("items", {"type": "string"})
    least, most = schema.get("minItems", 0), schema.get("maxItems", 3)
    unique = schema.get("uniqueItems", False)
    return st.lists(values(items, depth), min_size=least, max_size=most, unique=unique)


def specs(kind, depth=0):
    """A specification of a kind."""
    return scenarios() if kind is spec.ScenarioSpec else parts(kind, depth)


@st.composite
def scenarios(draw):
    """A scenario: a cluster with a host at least, and things that happen to what is there."""
    cluster = draw(specs(spec.ClusterSpec))
    if not cluster.hosts:
        cluster = cluster.replace(hosts=[spec.HostSpec("h0")])
    last = max((vm.start_ns for vm in cluster.vms), default=0)
    duration = draw(st.integers(max(last, 10**7), 2**53 - 1))
    step = draw(st.integers(max(duration // 10**7 + 1, 1), duration))
    time = st.integers(0, duration)
    host, to = (draw(st.sampled_from(cluster.hosts)).name for _ in "12")
    events = [spec.EventSpec(draw(time), "enter-maintenance", host)]
    events += [spec.EventSpec(draw(time), "migrate", vm.name, to) for vm in cluster.vms]
    again = st.none() | st.integers(1, 10**15)
    return spec.ScenarioSpec(
        cluster,
        duration,
        draw(NAMES),
        draw(specs(spec.PolicySpec).filter(lambda one: not (one.ha and one.ha.failover_hosts))),
        [spec.FaultSpec(draw(time), "isolation", host, draw(again))],
        draw(st.lists(st.sampled_from(events), max_size=3)),
        step,
        draw(st.none() | st.integers(1, 5).map(lambda n: n * step)),
        draw(st.integers(0, duration - 1)),
        draw(st.sampled_from(["exact", "demand"])),
        draw(st.none() | st.sampled_from(HYPERVISORS)),
        draw(st.integers(0, 2**53 - 1)),
        draw(st.integers(1, 1000)),
    )


@st.composite
def parts(draw, kind, depth):
    """Any other: fields that contradict others are left out, required ones drawn anew."""
    fields = fields_of(kind)
    required = [name for name, each in fields.items() if each.default is dataclasses.MISSING]

    def value(name):
        return draw(values(fields[name].metadata["schema"], depth))

    given = {name: value(name) for name in fields if name in required or draw(st.booleans())}
    for _ in range(60):
        try:
            return kind(**given)
        except pv.InvalidValueError as error:
            wrong = error.path[0]
            others = sorted(given.keys() - {wrong})
            if wrong not in given:
                wrong = draw(st.sampled_from(others))
            if wrong in required:
                given[wrong] = value(wrong)
            else:
                del given[wrong]
    return reject()
