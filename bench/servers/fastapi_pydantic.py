"""What most people write: FastAPI with pydantic models.

``python fastapi_pydantic.py MODEL PORT``
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime as ort  # noqa: TID253 - a program of its own, which needs it at once
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(BaseModel):
    inputs: list[Tensor]


class Response(BaseModel):
    outputs: list[Tensor]


app = FastAPI()


@app.post("/v2/models/m/infer")
async def infer(request: Request) -> Response:
    tensor = request.inputs[0]
    array = np.array(tensor.data, np.float32).reshape(tensor.shape)
    result = session.run(None, {"x": array})[0]
    shape, data = list(result.shape), result.ravel().tolist()
    return Response(outputs=[Tensor(name="y", shape=shape, datatype="FP32", data=data)])


uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)
