"""The signature of an MLflow model, as what scikit-learn gets.

Source: ``mlflow.types.schema`` (``Schema.from_json``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tracklayer.errors import ModelError
from tracklayer.serving.huggingface_outline import read_json
from tracklayer.serving.model import DATATYPES, Tensor
from tracklayer.serving.skops_inputs import INPUT, TEXT, Inputs

_EXAMPLE = "serving_input_example.json"

_COLUMNS = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
"""MLflow's types of columns -> the Open Inference Protocol's."""


def inputs_of(path: Path, document: Mapping[str, Any]) -> Inputs | None:
    """The inputs that the signature names; None: there is no signature.

    :param path: the folder of the model.
    :param document: what its ``MLmodel`` says.
    :raises ModelError: they are of a kind that is not served.
    """
    try:
        specs = json.loads((document.get("signature") or {}).get("inputs") or "[]")
        if not specs:
            return None
        if specs[0]["type"] == "tensor":
            [spec] = specs
            return Inputs((_tensor(spec),), table=False)
        if len(specs) == 1 and "name" not in specs[0] and specs[0]["type"] == "string":
            return Inputs((Tensor(TEXT, "BYTES", ("batch",)),), table=False)
        examples = _examples(path)
        return Inputs(tuple(_column(spec, examples) for spec in specs), table=True)
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise ModelError(
            f"MLmodel: this signature is not served: {error!r}",
            hint=f"Served are named columns of the types {', '.join(_COLUMNS)}, or one tensor.",
        ) from error


def _tensor(spec: Mapping[str, Any]) -> Tensor:
    dtype, shape = np.dtype(spec["tensor-spec"]["dtype"]), spec["tensor-spec"]["shape"]
    kind = "BYTES" if dtype.kind in "OSU" else next(n for n, d in DATATYPES.items() if d == dtype)
    free = ["batch", *[""] * len(shape)]
    dims = tuple(free[axis] if size < 0 else size for axis, size in enumerate(shape))
    return Tensor(spec.get("name") or INPUT, kind, dims)


def _column(spec: Mapping[str, Any], examples: Mapping[str, Any]) -> Tensor:
    name, kind = spec["name"], _COLUMNS[spec["type"]]
    example = examples.get(name)
    fits = isinstance(example, str if kind == "BYTES" else int | float)
    return Tensor(name, kind, ("batch",), example if fits else None)


def _examples(path: Path) -> dict[str, Any]:
    """The first row of the input that was saved with the model, if it is a table."""
    table = (read_json(path / _EXAMPLE) or {}).get("dataframe_split") or {}
    return dict(zip(table.get("columns") or (), (table.get("data") or [()])[0], strict=False))
