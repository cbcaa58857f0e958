"""The part of JSON Schema 2020-12 that our schemas use, by its definition; other keywords raise.

Numbers are as Python's reader of JSON has them: 4.0 is not taken for an integer.
"""

import re

ANNOTATIONS = {"$schema", "$defs", "title", "description", "default"}
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def accepts(schema, value, root=None):
    """Whether a schema accepts a value."""
    root = root or schema
    unknown = schema.keys() - ANNOTATIONS - CHECKS.keys()
    if unknown:
        raise NotImplementedError(sorted(unknown))
    return all(CHECKS[key](schema, value, root) for key in schema.keys() - ANNOTATIONS)


def _ref(schema, value, root):
    target = root
    for step in schema["$ref"].removeprefix("#/").split("/"):
        target = target[step]
    return accepts(target, value, root)


def _type(schema, value, root):
    number = schema["type"] in ("integer", "number")
    return isinstance(value, TYPES[schema["type"]]) and not (number and isinstance(value, bool))


def _equal(one, other):
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _if(schema, value, root):
    return not accepts(schema["if"], value, root) or accepts(schema["then"], value, root)


def _properties(schema, value, root):
    if not isinstance(value, dict):
        return True
    return all(
        accepts(inner, value[key], root)
        for key, inner in schema["properties"].items()
        if key in value
    )


def _additional(schema, value, root):
    assert schema["additionalProperties"] is False
    return not isinstance(value, dict) or value.keys() <= schema["properties"].keys()


def _numeric(compare):
    def check(schema, value, root):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return not is_number or compare(schema, value)

    return check


def _on(kind, compare):
    return lambda schema, value, root: not isinstance(value, kind) or compare(schema, value, root)


CHECKS = {
    "$ref": _ref,
    "type": _type,
    "enum": lambda schema, value, root: any(_equal(each, value) for each in schema["enum"]),
    "anyOf": lambda schema, value, root: any(accepts(s, value, root) for s in schema["anyOf"]),
    "allOf": lambda schema, value, root: all(accepts(s, value, root) for s in schema["allOf"]),
    "oneOf": lambda schema, value, root: sum(accepts(s, value, root) for s in schema["oneOf"]) == 1,
    "not": lambda schema, value, root: not accepts(schema["not"], value, root),
    "if": _if,
    "then": lambda schema, value, root: True,
    "properties": _properties,
    "additionalProperties": _additional,
    "required": _on(dict, lambda schema, value, root: set(schema["required"]) <= value.keys()),
    "minimum": _numeric(lambda schema, value: value >= schema["minimum"]),
    "maximum": _numeric(lambda schema, value: value <= schema["maximum"]),
    "pattern": _on(
        str, lambda schema, value, root: re.search(schema["pattern"], value) is not None
    ),
    "items": _on(
        list, lambda schema, value, root: all(accepts(schema["items"], v, root) for v in value)
    ),
    "minItems": _on(list, lambda schema, value, root: len(value) >= schema["minItems"]),
    "maxItems": _on(list, lambda schema, value, root: len(value) <= schema["maxItems"]),
    "uniqueItems": _on(
        list,
        lambda schema, value, root: (
            not any(_equal(a, b) for i, a in enumerate(value) for b in value[:i])
        ),
    ),
}
