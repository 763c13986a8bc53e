"""A service of BentoML around an ONNX model, as its documentation has them.

``MODEL=FILE bentoml serve bentoml_onnx:Onnx``
"""

import os

import bentoml
import numpy as np
import onnxruntime as ort  # noqa: TID253 - a program of its own, which needs it at once


@bentoml.service
class Onnx:
    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )

    @bentoml.api
    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"x": x.astype(np.float32)})[0]

    @bentoml.api
    def embed(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        return self.session.run(None, feeds)[0]
