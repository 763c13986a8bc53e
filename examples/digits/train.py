"""Train a small convolutional network on 8x8 pictures of handwritten digits.

A plain script: it reads ``SM_CHANNEL_DATA``, writes ``SM_MODEL_DIR`` and takes its
hyperparameters as arguments, so it also runs by hand and on SageMaker.
"""

import argparse
import json
import os
import warnings
from pathlib import Path

import mlflow
import numpy as np
import torch
from torch import Tensor, nn

CLASSES = 10
SIDE = 8  # pixels; each counts 0 to 16


def read(file: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures ``[n, 64]`` and digits ``[n]``, to train on and held out (every fifth row)."""
    table = np.loadtxt(file, delimiter=",", skiprows=1, dtype=np.float32)
    pixels, digits = torch.from_numpy(table[:, :-1]), torch.from_numpy(table[:, -1]).long()
    held_out = torch.arange(len(table)) % 5 == 4
    return pixels[~held_out], digits[~held_out], pixels[held_out], digits[held_out]


def network() -> nn.Module:
    """Raw pixels ``[n, 64]`` to one score a digit ``[n, 10]``."""
    return nn.Sequential(
        nn.Unflatten(1, (1, SIDE, SIDE)),
        nn.BatchNorm2d(1),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(32 * 16, CLASSES),
    )


class Classifier(nn.Module):
    """What is served: the digit and the probability of each."""

    def __init__(self, scores: nn.Module) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = self.scores(pixels).softmax(1)
        return probabilities.argmax(1), probabilities


def train_epoch(
    model: nn.Module, pixels: Tensor, digits: Tensor, batch: int, optimizer: torch.optim.Optimizer
) -> float:
    """One pass over the pictures in random order; the mean loss."""
    model.train()
    total = 0.0
    for rows in torch.randperm(len(digits)).split(batch):
        loss = nn.functional.cross_entropy(model(pixels[rows]), digits[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(rows)
    return total / len(digits)


@torch.no_grad()
def accuracy(model: nn.Module, pixels: Tensor, digits: Tensor) -> float:
    model.eval()
    return (model(pixels).argmax(1) == digits).double().mean().item()


def save(model: nn.Module, examples: Tensor, folder: Path) -> None:
    """The model as ONNX, and a golden request that a new version has to answer."""
    # The older exporter: a fifth of a second, and no package but onnx.
    warnings.filterwarnings("ignore", "You are using the legacy TorchScript", DeprecationWarning)
    torch.onnx.export(
        Classifier(model).eval(),
        (examples,),
        folder / "model.onnx",
        dynamo=False,
        input_names=["pixels"],
        output_names=["digit", "probabilities"],
        dynamic_axes={name: {0: "batch"} for name in ("pixels", "digit", "probabilities")},
    )
    pixels = {
        "name": "pixels",
        "shape": list(examples.shape),
        "datatype": "FP32",
        "data": examples.flatten().tolist(),
    }
    (folder / "golden.json").write_text(json.dumps({"inputs": [pixels]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=0.005)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=os.environ.get("SM_CHANNEL_DATA", "data"))
    parser.add_argument("--model-dir", type=Path, default=os.environ.get("SM_MODEL_DIR", "model"))
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    pixels, digits, test_pixels, test_digits = read(options.data / "optdigits.csv.gz")
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), options.learning_rate)
    for epoch in range(1, options.epochs + 1):
        loss = train_epoch(model, pixels, digits, options.batch_size, optimizer)
        metrics = {"loss": loss, "accuracy": accuracy(model, test_pixels, test_digits)}
        print(f"epoch {epoch:2}  loss {loss:.4f}  accuracy {metrics['accuracy']:.4f}", flush=True)
        if "MLFLOW_TRACKING_URI" in os.environ:
            mlflow.log_metrics(metrics, step=epoch)

    options.model_dir.mkdir(parents=True, exist_ok=True)
    save(model, test_pixels[:4], options.model_dir)


if __name__ == "__main__":
    main()
