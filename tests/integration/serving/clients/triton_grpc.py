"""Triton's gRPC client against a server: ``triton_grpc.py host:port``; prints what it got as JSON.

The model is that of ``triton_http.py``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

ARRAYS = {
    "words": ("BYTES", np.array(["é", "", "two words"], dtype=object)),
    "halves": ("FP16", np.array([0.5, -2, 65504], dtype=np.float16)),
    "numbers": ("FP32", np.array([[1, 2], [3, 4], [5.5, -6]], dtype=np.float32)),
    "flags": ("BOOL", np.array([True, False, True])),
}


def given() -> list[Any]:
    inputs = []
    for name, (datatype, array) in ARRAYS.items():
        tensor = triton.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def plain(array: Any) -> Any:
    values = array.ravel().tolist()
    return [value.decode() if isinstance(value, bytes) else value for value in values]


def refusal(client: Any, inputs: list[Any], model: str = "m") -> list[str]:
    try:
        client.infer(model, inputs)
    except InferenceServerException as error:
        return [str(error.status()), str(error.message())]
    return ["200", ""]


def main() -> None:
    client = triton.InferenceServerClient(sys.argv[1])
    metadata = client.get_model_metadata("m", "3")
    found: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready("m"),
        "server": client.get_server_metadata().name,
        "inputs": [[each.name, each.datatype, list(each.shape)] for each in metadata.inputs],
    }
    outputs = [triton.InferRequestedOutput(f"{name}_") for name in ARRAYS]
    result = client.infer("m", given(), "3", outputs, request_id="r1")
    found["infer"] = {name: plain(result.as_numpy(f"{name}_")) for name in ARRAYS}
    found["id"] = result.get_response().id
    answers: list[Any] = []
    calls = [
        client.async_infer("m", given(), lambda result, error: answers.append(error or result))
        for _ in range(5)
    ]
    for call in calls:
        call.get_result() if hasattr(call, "get_result") else None
    while len(answers) < len(calls):
        pass
    found["asynchronous"] = [plain(answer.as_numpy("numbers_")) for answer in answers]
    found["missing input"] = refusal(client, given()[1:])
    wrong = given()
    wrong[2].set_shape([3, 3])
    found["wrong shape"] = refusal(client, wrong)
    found["no such model"] = refusal(client, given(), "z")
    client.close()
    print(json.dumps(found))


main()
