"""Triton's HTTP client against a server: ``triton_http.py host:port``; prints what it got as JSON.

The model gives back its inputs: ``words`` BYTES, ``halves`` FP16, ``numbers`` FP32 and ``flags``
BOOL, each as ``<name>_``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

ARRAYS = {
    "words": ("BYTES", np.array(["é", "", "two words"], dtype=object)),
    "halves": ("FP16", np.array([0.5, -2, 65504], dtype=np.float16)),
    "numbers": ("FP32", np.array([[1, 2], [3, 4], [5.5, -6]], dtype=np.float32)),
    "flags": ("BOOL", np.array([True, False, True])),
}


def given(in_bytes: set[str]) -> list[Any]:
    inputs = []
    for name, (datatype, array) in ARRAYS.items():
        tensor = triton.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=name in in_bytes)
        inputs.append(tensor)
    return inputs


def plain(array: Any) -> Any:
    values = array.ravel().tolist()
    return [value.decode() if isinstance(value, bytes) else value for value in values]


def refusal(client: Any, change: Any) -> list[str]:
    inputs = given(set(ARRAYS))
    change(inputs)
    try:
        client.infer("m", inputs)
    except InferenceServerException as error:
        return [str(error.status()), str(error.message())]
    return ["200", ""]


def main() -> None:
    client = triton.InferenceServerClient(sys.argv[1])
    found: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready("m", "3"),
        "extensions": client.get_server_metadata()["extensions"],
        "inputs": [tensor["name"] for tensor in client.get_model_metadata("m")["inputs"]],
        "index": client.get_model_repository_index(),
    }
    everything = set(ARRAYS)
    for case, in_bytes, out_bytes in (
        ("all in bytes", everything, everything),
        # This client refuses to write FP16 as JSON.
        ("mixed", {"halves", "words"}, {"halves", "numbers"}),
        ("json back", everything, set()),
    ):
        outputs = [
            triton.InferRequestedOutput(f"{name}_", binary_data=name in out_bytes)
            for name in ARRAYS
        ]
        result = client.infer("m", given(in_bytes), "3", outputs, request_id="r1")
        found[case] = {name: plain(result.as_numpy(f"{name}_")) for name in ARRAYS}
        found[f"{case}: id"] = result.get_response()["id"]
    result = client.infer("m", given(everything))
    found["no outputs named"] = {name: plain(result.as_numpy(f"{name}_")) for name in ARRAYS}
    found["unknown input"] = refusal(client, lambda inputs: setattr(inputs[0], "_name", "z"))
    found["wrong shape"] = refusal(client, lambda inputs: inputs[2].set_shape([3, 3]))
    found["wrong type"] = refusal(client, lambda inputs: setattr(inputs[1], "_datatype", "FP32"))
    client.close()
    print(json.dumps(found))


main()
