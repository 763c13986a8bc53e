"""Train a logistic regression on two columns of numbers and save it as ONNX.

A plain script: it reads ``SM_CHANNEL_DATA``, writes ``SM_MODEL_DIR`` and takes its
hyperparameters as arguments. Put your own training in its place.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def to_onnx(weights: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:
    """A model from ``points [batch, 2]`` to ``probability [batch, 1]`` of the second kind."""
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["points", "weights", "bias"], ["score"]),
            helper.make_node("Sigmoid", ["score"], ["probability"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("points", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", 1])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "weights"),
            numpy_helper.from_array(bias.astype(np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--learning-rate", type=float, default=0.5)
    parser.add_argument("--data", type=Path, default=os.environ.get("SM_CHANNEL_DATA", "data"))
    parser.add_argument("--model-dir", type=Path, default=os.environ.get("SM_MODEL_DIR", "model"))
    options = parser.parse_args()

    table = np.loadtxt(options.data / "points.csv", delimiter=",", skiprows=1)
    points, kinds = table[:, :2], table[:, 2:]
    held_out = np.arange(len(table)) % 5 == 4
    x, y = points[~held_out], kinds[~held_out]

    weights, bias = np.zeros((2, 1)), np.zeros(1)
    for epoch in range(1, options.epochs + 1):
        error = 1 / (1 + np.exp(-(x @ weights + bias))) - y
        weights -= options.learning_rate * x.T @ error / len(x)
        bias -= options.learning_rate * error.mean()
        if epoch % 100 == 0 or epoch == options.epochs:
            right = (points[held_out] @ weights + bias > 0) == kinds[held_out]
            print(f"epoch {epoch}: accuracy={right.mean():.4f}", flush=True)

    options.model_dir.mkdir(parents=True, exist_ok=True)
    onnx.save(to_onnx(weights, bias), options.model_dir / "model.onnx")


if __name__ == "__main__":
    main()
