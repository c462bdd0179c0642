"""What msgspec finds wrong with a value, in plain words: ``Expected `int`, got `str` - at `$.limit` `` → ``limit must be a whole number, not a text``."""

import re

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
}
_SIZES = {"str": "{} characters", "array": "{} entries", "object": "{} fields"}
_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_WHERE = re.compile(r"(.*?)(?: - at `(?:key in )?\$\.?([^`]*)`)?\Z", re.DOTALL)
_KIND = re.compile(r"Expected `([^`]+)`(?:, got `([^`]+)`)?\Z")
_BOUND = re.compile(r"Expected `\w+` ([<>]=?) (\S+)\Z")
_LENGTH = re.compile(r"Expected `(\w+)` of length ([<>]=?) (\d+)\Z")
_FORM = re.compile(r"Expected `str` matching regex '(.*)'\Z", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `([^`]+)`\Z")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]+)`\Z")
_VALUE = re.compile(r"Invalid (?:enum )?value (.+)\Z", re.DOTALL)
_MALFORMED = re.compile(r"JSON is malformed: (.+)\Z", re.DOTALL)


def in_words(error: Exception) -> str:
    """One line. What is not known here stays as it is, behind the place where it is."""
    said = _WHERE.match(str(error))
    what, place = (said[1], said[2] or "") if said else (str(error), "")
    if found := _MISSING.match(what):
        return f"{_inside(place, found[1])} is missing"
    if found := _UNKNOWN.match(what):
        return f"there is no field {_inside(place, found[1])}"
    if what == "Input data was truncated":
        return "the JSON ends too soon"
    if found := _MALFORMED.match(what):
        return f"not JSON: {found[1]}"
    must = _must(what)
    if must:
        return f"{place or 'it'} {must}"
    return f"{place}: {what}" if place else what


def _must(what: str) -> str:
    if found := _KIND.match(what):
        return f"must be {_named(found[1])}" + (f", not {_named(found[2])}" if found[2] else "")
    if found := _BOUND.match(what):
        return f"must be {_BOUNDS[found[1]]} {found[2]}"
    if found := _LENGTH.match(what):
        return f"must have {_BOUNDS[found[2]]} {_SIZES.get(found[1], '{}').format(found[3])}"
    if found := _FORM.match(what):
        if "x00-" in found[1]:  # messages.PLAIN
            return "must have something that can be seen, and no control characters"
        return f"must be of the form {found[1]}"
    if found := _VALUE.match(what):
        return f"cannot be {found[1]}"
    return ""


def _named(types: str) -> str:
    return " or ".join(_TYPES.get(one, one) for one in types.split(" | "))


def _inside(place: str, field: str) -> str:
    return f"{place}.{field}" if place else field
