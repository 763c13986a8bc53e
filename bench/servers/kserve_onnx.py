"""A model of KServe's Python server for ONNX, as its documentation has custom ones.

``python kserve_onnx.py --model_file MODEL --model_name m --http_port PORT --grpc_port PORT``
"""

from __future__ import annotations

import argparse

import onnxruntime as ort  # noqa: TID253 - a program of its own, which needs it at once
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server
from kserve.utils.numpy_codec import from_np_dtype
from kserve.utils.utils import generate_uuid


class OnnxModel(Model):
    def __init__(self, name: str, file: str) -> None:
        super().__init__(name)
        self._file = file
        self.load()

    def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self._session = ort.InferenceSession(self._file, options, providers=providers)
        self._names = [output.name for output in self._session.get_outputs()]
        self.ready = True
        return self.ready

    def predict(
        self,
        payload: InferRequest,
        headers: dict[str, str] | None = None,  # noqa: ARG002
    ) -> InferResponse:
        feeds = {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
        results = self._session.run(self._names, feeds)
        outputs = []
        for name, result in zip(self._names, results, strict=True):
            output = InferOutput(name, list(result.shape), from_np_dtype(result.dtype))
            output.set_data_from_numpy(result, binary_data=False)
            outputs.append(output)
        return InferResponse(
            response_id=payload.id or generate_uuid(), model_name=self.name, infer_outputs=outputs
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.add_argument("--model_file", required=True)
    arguments, _ = parser.parse_known_args()
    ModelServer().start([OnnxModel(arguments.model_name, arguments.model_file)])
