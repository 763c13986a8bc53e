"""An ONNX model as a model of MLflow, with a signature, for ``mlflow models serve``.

``python mlflow_save.py MODEL FOLDER``
"""

from __future__ import annotations

import sys

import mlflow.onnx  # noqa: TID253 - a program of its own, which needs it at once
import numpy as np
import onnx
from mlflow.models import ModelSignature  # noqa: TID253
from mlflow.types import Schema, TensorSpec  # noqa: TID253

model = onnx.load(sys.argv[1])


def specs(values: object) -> Schema:
    found = []
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(dim.dim_value or -1 for dim in tensor.shape.dim)
        kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        found.append(TensorSpec(kind, shape, value.name))
    return Schema(found)


mlflow.onnx.save_model(
    model,
    sys.argv[2],
    signature=ModelSignature(specs(model.graph.input), specs(model.graph.output)),
    onnx_execution_providers=["CPUExecutionProvider"],
    onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
)
