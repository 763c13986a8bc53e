"""The JSON Schema of ``tracklayer.yaml``, for editors."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from tracklayer.spec.models import Spec


class _Generator(GenerateJsonSchema):
    """Says what a file may say, where pydantic says what Python may."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> dict[str, Any]:
        # In a file, a key without a value is an error: it has a value or is left out.
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        found = super().default_schema(schema)
        return {key: value for key, value in found.items() if (key, value) != ("default", None)}

    def dict_schema(self, schema: core_schema.DictSchema) -> dict[str, Any]:
        found = super().dict_schema(schema)
        # A name that breaks the rule for names is an error, and not a name of another kind.
        return {**found, "additionalProperties": False} if "patternProperties" in found else found


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) that accepts whatever :func:`tracklayer.spec.loads` does."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "tracklayer.yaml",
        **Spec.model_json_schema(schema_generator=_Generator),
    }
