"""An API of LitServe around an ONNX model, as its documentation has them.

``python litserve_onnx.py MODEL PORT``
"""

import sys

import litserve as ls
import numpy as np
import onnxruntime as ort  # noqa: TID253 - a program of its own, which needs it at once

TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class Onnx(ls.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(
            sys.argv[1], options, providers=["CPUExecutionProvider"]
        )
        self.types = {each.name: TYPES[each.type] for each in self.session.get_inputs()}

    # LitServe checks requests by the annotation, if there is one.
    def decode_request(self, request):
        return {name: np.array(request[name], kind) for name, kind in self.types.items()}

    def predict(self, x: dict) -> np.ndarray:
        return self.session.run(None, x)[0]

    def encode_response(self, output: np.ndarray) -> dict:
        return {"output": output.tolist()}


if __name__ == "__main__":
    server = ls.LitServer(Onnx(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
