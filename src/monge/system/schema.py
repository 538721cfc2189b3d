"""Schemas of monge's JSON files: type and range of each value, checked when a file is read.

A run folder may come from somebody else, be damaged, or be written by hand. A schema is a function
of a value and the name of its place that raises `Wrong` if the value does not fit. `read_json`
of this module reads a file, applies its schema, and names file, key and value in its error.

>>> point = fields({"name": text, "n": whole(1)}, optional={"std": maybe(number(0))})
>>> point({"name": "a", "n": 3}, "")
>>> point({"name": "a", "n": 0}, "")
Traceback (most recent call last):
monge.system.schema.Wrong: n should be a whole number, 1 or more, not 0
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from monge.errors import UserError
from monge.system import files

Schema: TypeAlias = Callable[[Any, str], None]

DEEPEST = 40
"""Most levels of lists and objects; monge writes fewer than ten."""

SHOWN = 60
"""Characters of a wrong value that a message repeats."""

MOST = 2**53
"""Largest whole number: JSON readers with float64 numbers confuse larger ones."""


class Wrong(ValueError):
    """A value that does not fit, with its place."""

    def __init__(self, where: str, wanted: str, value: Any) -> None:
        given = repr(value)
        given = given if len(given) <= SHOWN else given[:SHOWN] + "..."
        super().__init__(f"{where or 'the file'} should be {wanted}, not {given}")


class Lacking(Wrong):
    """An object that lacks required keys."""

    def __init__(self, where: str, keys: list[str]) -> None:
        ValueError.__init__(self, f"{where or 'it'} lacks {', '.join(keys)}")


def read_json(path: Path, schema: Schema, remedy: str = "put the file back") -> Any:
    """Read a JSON file and check it against a schema.

    Raises:
        UserError: a missing or damaged file, or a value that does not fit, with file and key.
    """
    found = files.read_json(path)
    check(found, schema, str(path), remedy)
    return found


def check(value: Any, schema: Schema, where: str, remedy: str = "put the file back") -> None:
    """Check a value against a schema.

    Raises:
        UserError: the value does not fit; names place, key and value.
    """
    try:
        _shallow(value)
        schema(value, "")
    except Wrong as error:
        raise UserError(f"{where} is damaged: {error}; {remedy}") from None


def _shallow(value: Any) -> None:
    """Refuse values nested deeper than `DEEPEST`."""
    level, seen = [value], 0
    while level:
        if seen > DEEPEST:
            raise Wrong("", f"nested at most {DEEPEST} levels deep", "deeper")
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        level, seen = inner, seen + 1


def number(low: float = -math.inf, high: float = math.inf) -> Schema:
    """A finite number within bounds, ends included."""

    def schema(value: Any, where: str) -> None:
        plain = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not plain or abs(value) > 1e308 or not math.isfinite(value) or not low <= value <= high:
            raise Wrong(where, f"a number{_bounds(low, high)}", value)

    return schema


def whole(low: int = 0, high: int = MOST) -> Schema:
    """A whole number within bounds, ends included."""

    def schema(value: Any, where: str) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise Wrong(where, f"a whole number{_bounds(low, high)}", value)

    return schema


def _bounds(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return ""
    return f", {low:g} or more" if high in (math.inf, MOST) else f" from {low:g} to {high:g}"


def portable(value: Any, where: str) -> None:
    """A number in strict JSON: null for NaN, "inf" and "-inf" for infinities."""
    if value not in (None, "inf", "-inf"):
        number()(value, where)


def text(value: Any, where: str) -> None:
    """A text."""
    if not isinstance(value, str):
        raise Wrong(where, "a text", value)


def truth(value: Any, where: str) -> None:
    """true or false."""
    if not isinstance(value, bool):
        raise Wrong(where, "true or false", value)


def scalar(value: Any, where: str) -> None:
    """A text, a finite number, a truth value or null."""
    if isinstance(value, float) and not math.isfinite(value):
        raise Wrong(where, "a finite number", value)
    if not isinstance(value, (str, int, float, bool, type(None))):
        raise Wrong(where, "a text, a number, a truth value or null", value)


def anything(_: Any, __: str) -> None:
    """Any JSON value."""


def one_of(*values: Any) -> Schema:
    """One of the given texts or numbers."""

    def schema(value: Any, where: str) -> None:
        if not any(type(value) is type(v) and value == v for v in values):
            raise Wrong(where, " or ".join(map(repr, values)), value)

    return schema


def maybe(schema: Schema) -> Schema:
    """null, or a value that fits the schema."""
    return lambda value, where: None if value is None else schema(value, where)


def either(*schemas: Schema) -> Schema:
    """A value that fits one of the schemas."""

    def schema(value: Any, where: str) -> None:
        errors = []
        for each in schemas:
            try:
                return each(value, where)
            except Wrong as error:
                errors.append(error)
        raise errors[-1]

    return schema


def listed(item: Schema, low: int = 0, high: int = MOST) -> Schema:
    """A list of values that fit, of a length within bounds."""

    def schema(value: Any, where: str) -> None:
        if not isinstance(value, list) or not low <= len(value) <= high:
            exactly = f" of {low}" if low == high else f" of at least {low}" if low else ""
            raise Wrong(where, f"a list{exactly}", value)
        for i, each in enumerate(value):
            item(each, f"{where}[{i}]")

    return schema


def table(item: Schema) -> Schema:
    """An object with any keys and values that fit."""

    def schema(value: Any, where: str) -> None:
        for key, each in _object(value, where).items():
            item(each, _inside(where, key))

    return schema


def fields(
    required: Mapping[str, Schema],
    optional: Mapping[str, Schema] | None = None,
    others: Schema | None = anything,
) -> Schema:
    """An object with these keys.

    Args:
        others: the schema of values under other keys; None refuses such keys.
    """

    def schema(value: Any, where: str) -> None:
        found = _object(value, where)
        if lacking := [key for key in required if key not in found]:
            raise Lacking(where, lacking)
        for key, each in found.items():
            own = required.get(key) or (optional or {}).get(key) or others
            if own is None:
                raise Wrong(_inside(where, key), "absent", each)
            own(each, _inside(where, key))

    return schema


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Wrong(where, "a JSON object", value)
    return value


def _inside(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
