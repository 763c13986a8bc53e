"""The least that serves the model: one ASGI function, orjson, onnxruntime. No check of anything.

``python raw.py MODEL PORT``
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnxruntime as ort  # noqa: TID253 - a program of its own, which needs it at once
import orjson
import uvicorn

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])


async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    tensor = orjson.loads(body)["inputs"][0]
    array = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
    result = session.run(None, {"x": array})[0]
    output = {"name": "y", "shape": result.shape, "datatype": "FP32", "data": result.ravel()}
    answer = orjson.dumps({"outputs": [output]}, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False, lifespan="off")
