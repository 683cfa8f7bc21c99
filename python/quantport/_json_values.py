"""Dataclasses out of the JSON of the library's reports, by their annotations."""
from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def from_json(kind: type[T], values: dict[str, Any]) -> T:
    """An instance of the dataclass ``kind``.

    A field with a default may be missing in ``values``. Metadata {"json": name} on a field is the name that JSON has for it.
    """
    arguments = {}
    for name, key, convert in _fields(typing.cast(Any, kind)):
        if key in values:
            arguments[name] = convert(values[key])
    return kind(**arguments)


@functools.cache
def _fields(kind: Any) -> list[tuple[str, str, Callable[[Any], Any]]]:
    hints = typing.get_type_hints(kind)
    return [(field.name, field.metadata.get("json", field.name), _converter(hints[field.name]))
            for field in dataclasses.fields(kind)]


def _converter(hint: Any) -> Callable[[Any], Any]:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return functools.partial(from_json, hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        item = _converter(arguments[0])
        return lambda values: [item(value) for value in values]
    if origin in (typing.Union, types.UnionType):
        inner = _converter(next(argument for argument in arguments if argument is not type(None)))
        return lambda value: None if value is None else inner(value)
    if hint is float:  # JSON has no infinity: the library writes null
        return lambda value: math.inf if value is None else value
    return lambda value: value
