"""What pydantic found wrong, in the words of somebody who writes a spec."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tracklayer.errors import Problem
from tracklayer.spec.document import Document, short
from tracklayer.spec.fields import suggest
from tracklayer.spec.positions import Loc, dotted

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
}
_LIMITS = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entry",
    "too_long": "must have at most {max_length} entries",
    "finite_number": "must be a finite number",
}


def explain(error: ValidationError, model: type[BaseModel], document: Document) -> list[Problem]:
    """All problems of a file, located. What was refused as YAML already is not told twice."""
    return [
        _problem(found, model, document)
        for found in error.errors(include_url=False)
        if not any(
            _loc(found, document)[: len(refused)] == refused for refused in document.problems
        )
    ]


def _loc(error: ErrorDetails, document: Document) -> Loc:
    """The path, of parts that are in the file.

    pydantic's own also names members of unions, and ``value`` where a value has its short form.
    """
    loc: Loc = ()
    for part in error["loc"]:
        inner = (*loc, part)
        if inner in document.positions.keys or inner in document.positions.values:
            loc = inner
    return (*loc, error["loc"][-1]) if error["type"] == "missing" else loc


def _problem(error: ErrorDetails, model: type[BaseModel], document: Document) -> Problem:
    loc, kind, context = _loc(error, document), error["type"], error.get("ctx", {})
    name = f"`{dotted(loc)}`"
    at = document.positions.problem
    if kind == "extra_forbidden":
        return at(loc, f"unknown key {name}", _unknown(loc, model), key=True)
    if kind == "missing":
        fields = _model_at(model, loc[:-1]).model_fields
        return at(loc, f"{name} is missing", _about(loc, fields), key=True)
    if error["loc"][-1:] == ("[key]",) and loc != error["loc"]:
        message = f"the name `{short(str(loc[-1]))}` {error['msg']}"
        return at(loc, message, context.get("hint"), key=True)
    if kind == "spec":
        return at(loc, f"{name} {context['message']}", context["hint"])
    if kind == "literal_error":
        allowed = re.findall("'([^']*)'", context["expected"])
        value = error["input"]
        message = f"{name} must be one of these, not {_described(value)}"
        return at(loc, message, suggest(str(value), allowed))
    if kind in _LIMITS:
        return at(loc, f"{name} {_LIMITS[kind].format(**context)}")
    if kind in _WANTED:
        got = _described(error["input"], document.written.get(loc))
        message = f"{name} must be {_WANTED[kind]}, not {got}"
        return at(loc, message, _retyped(kind, loc, error["input"], model, document))
    return at(loc, f"{name}: {error['msg']}")


def _described(value: Any, written: str | None = None) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {written or value}"
        case str():
            return f"`{value}`" if len(value) <= 60 else "a long text"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _retyped(
    kind: str, loc: Loc, value: Any, model: type[BaseModel], document: Document
) -> str | None:
    """How to write what was probably meant."""
    written = document.written.get(loc, str(value))
    match kind, value:
        case "string_type", bool() | int() | float():
            return f'Quote it: "{written}"'
        case (("int_type" | "float_type"), str()) if re.fullmatch(r"-?[0-9.]+", value):
            return f"Write it without quotes: {value}"
        case "list_type", str():
            return f"Write a list: [{value}]"
        case "model_type", _:
            return f"Allowed keys: {', '.join(_model_at(model, loc).model_fields)}."
    return None


def _about(loc: Loc, fields: dict[str, Any]) -> str | None:
    found = fields.get(str(loc[-1]))
    return f"{found.description}." if found and found.description else None


def _unknown(loc: Loc, model: type[BaseModel]) -> str:
    """Where the key belongs, if it is one of another section; else what is allowed here."""
    key, here = str(loc[-1]), _model_at(model, loc[:-1])
    for name, field in model.model_fields.items():
        for section in _models(field.annotation):
            if key in section.model_fields and section is not here:
                return f"`{key}` belongs under `{name}`."
    return suggest(key, here.model_fields)


def _model_at(model: type[BaseModel], loc: Loc) -> type[BaseModel]:
    """The model that a path leads to. Parts that are no field are keys of a mapping, or indices."""
    for part in loc:
        field = model.model_fields.get(str(part))
        model = next(_models(field.annotation), model) if field else model
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
