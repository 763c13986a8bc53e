"""KServe's clients against a server: ``kserve_clients.py URL GRPC``; prints what they got as JSON.

The model is that of ``triton_http.py``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx
import numpy as np
from grpc.aio import AioRpcError
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

ARRAYS = {
    "words": ("BYTES", np.array(["é", "", "two words"], dtype=object)),
    "halves": ("FP16", np.array([0.5, -2, 65504], dtype=np.float16)),
    "numbers": ("FP32", np.array([[1, 2], [3, 4], [5.5, -6]], dtype=np.float32)),
    "flags": ("BOOL", np.array([True, False, True])),
}


def request(in_bytes: set[str], out_bytes: set[str], **changes: Any) -> InferRequest:
    inputs = []
    for name, (datatype, array) in ARRAYS.items():
        tensor = InferInput(name, list(array.shape), datatype)
        if datatype == "BYTES" and name not in in_bytes:
            tensor.data = array.tolist()
        else:
            tensor.set_data_from_numpy(array, binary_data=name in in_bytes)
            tensor.shape = changes.get(name, list(array.shape))
        inputs.append(tensor)
    outputs = [RequestedOutput(f"{name}_", {"binary_data": name in out_bytes}) for name in ARRAYS]
    return InferRequest("m", inputs, request_id="r1", request_outputs=outputs)


def plain(response: Any) -> dict[str, Any]:
    found = {}
    for output in response.outputs:
        values = output.as_numpy().ravel().tolist()
        found[output.name.rstrip("_")] = [
            value.decode() if isinstance(value, bytes) else value for value in values
        ]
    return found


async def over_http(url: str) -> dict[str, Any]:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    found: dict[str, Any] = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model ready": await client.is_model_ready(url, "m"),
    }
    everything = set(ARRAYS)
    for case, in_bytes, out_bytes in (
        ("all in bytes", everything, everything),
        # This client refuses to write FP16 as JSON.
        ("mixed", {"halves", "words"}, {"halves", "numbers"}),
    ):
        response = await client.infer(url, request(in_bytes, out_bytes), "m")
        found[case] = plain(response)
        found[f"{case}: id"] = response.id
    try:
        await client.infer(url, request(everything, set(), numbers=[3, 3]), "m")
    except httpx.HTTPStatusError as error:
        found["wrong shape"] = [str(error.response.status_code), str(error)]
    await client.close()
    return found


async def over_grpc(address: str) -> dict[str, Any]:
    async with InferenceGRPCClient(address) as client:
        found: dict[str, Any] = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model ready": await client.is_model_ready("m"),
        }
        response = await client.infer(request(set(ARRAYS), set()))
        found["infer"] = plain(response)
        found["id"] = response.id
        try:
            await client.infer(request(set(ARRAYS), set(), numbers=[3, 3]))
        except AioRpcError as error:
            found["wrong shape"] = [error.code().name, str(error.details())]
        return found


async def main() -> None:
    found = {"http": await over_http(sys.argv[1]), "grpc": await over_grpc(sys.argv[2])}
    print(json.dumps(found))


asyncio.run(main())
