"""A runtime of MLServer for an ONNX model, as its documentation has custom ones.

MLServer imports it from the folder that it is started on.
"""

from __future__ import annotations

import onnxruntime as ort  # noqa: TID253 - a program of its own, which needs it at once
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        file = await get_model_uri(self.settings)
        self._session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {
            tensor.name: self.decode(tensor, default_codec=NumpyCodec) for tensor in payload.inputs
        }
        results = self._session.run(self._names, feeds)
        outputs = [
            NumpyCodec.encode_output(name, result)
            for name, result in zip(self._names, results, strict=True)
        ]
        return InferenceResponse(
            model_name=self.name, model_version=self.version, id=payload.id, outputs=outputs
        )
