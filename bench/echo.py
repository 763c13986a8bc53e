"""A model that gives back its inputs, one of each kind of type, and the requests it answers."""

from __future__ import annotations

import json
import struct
from copy import deepcopy
from pathlib import Path
from typing import Any

INPUTS: dict[str, tuple[str, list[int]]] = {
    "numbers": ("FP32", [2, 4]),
    "halves": ("FP16", [2]),
    "counts": ("INT64", [2]),
    "words": ("BYTES", [2]),
    "flags": ("BOOL", [2]),
}
"""Name -> data type and a shape that fits; the first axis is free."""

INFER = "/v2/models/m/infer"
PREDICT = "/v2/models/m/predict/"
INVOCATIONS = "/invocations"
LENGTH = "inference-header-content-length"

VALUES: dict[str, list[Any]] = {
    "numbers": [0.5, 1, -2, 3.25, 0, 4, 5, 6],
    "halves": [0.5, -2],
    "counts": [1, -7],
    "words": ["a", "é"],
    "flags": [True, False],
}
ROWS: dict[str, list[Any]] = VALUES | {"numbers": [[0.5, 1, -2, 3.25], [0, 4, 5, 6]]}
BLOBS = {
    "numbers": struct.pack("<8f", *VALUES["numbers"]),
    "halves": struct.pack("<2e", 0.5, -2),
    "counts": struct.pack("<2q", 1, -7),
    "words": struct.pack("<I1sI2s", 1, b"a", 2, "é".encode()),
    "flags": b"\1\0",
}


def valid_request() -> dict[str, Any]:
    return {
        "id": "a",
        "inputs": [
            {"name": name, "shape": shape, "datatype": datatype, "data": VALUES[name]}
            for name, (datatype, shape) in deepcopy(INPUTS).items()
        ],
        "outputs": [{"name": f"{name}_"} for name in INPUTS],
    }


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


def in_bytes(document: dict[str, Any], names: set[str]) -> tuple[bytes, list[bytes]]:
    """The JSON of a request, and the bytes of these inputs behind it."""
    blobs = []
    for item in document["inputs"]:
        if item["name"] in names:
            del item["data"]
            blobs.append(BLOBS[item["name"]])
            item["parameters"] = {"binary_data_size": len(blobs[-1])}
    return as_json(document), blobs


def message_of(request: dict[str, Any], *, raw: bool = True) -> Any:
    from tracklayer.serving.grpc_tensors import CONTENTS
    from tracklayer.serving.protocol import open_inference_pb2 as messages

    message = messages.ModelInferRequest(model_name="m", id=request["id"])
    for item in request["inputs"]:
        tensor = message.inputs.add(
            name=item["name"], datatype=item["datatype"], shape=item["shape"]
        )
        if raw:
            message.raw_input_contents.append(BLOBS[item["name"]])
        elif item["datatype"] in CONTENTS:
            values = [each.encode() if type(each) is str else each for each in item["data"]]
            getattr(tensor.contents, CONTENTS[item["datatype"]]).extend(values)
    for item in request["outputs"]:
        message.outputs.add(name=item["name"])
    return message


def save(folder: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    elements = {"FP32": "FLOAT", "FP16": "FLOAT16", "BYTES": "STRING"}
    nodes, inputs, outputs = [], [], []
    for name, (datatype, shape) in INPUTS.items():
        element = getattr(TensorProto, elements.get(datatype, datatype))
        sizes: list[str | int | None] = ["n", *shape[1:]]
        inputs.append(helper.make_tensor_value_info(name, element, sizes))
        outputs.append(helper.make_tensor_value_info(f"{name}_", element, sizes))
        nodes.append(helper.make_node("Identity", [name], [f"{name}_"]))
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "model.onnx")
