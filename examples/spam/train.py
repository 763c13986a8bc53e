"""Fine-tune MiniLM to tell the classes of short texts apart, here spam from what is wanted.

A plain script: it reads ``SM_CHANNEL_DATA`` and ``SM_CHANNEL_BASE``, writes ``SM_MODEL_DIR`` and
takes its hyperparameters as arguments, so it also runs by hand and on SageMaker.
"""

import argparse
import csv
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, logging

Row = tuple[str, str]

TOKENS = 128  # a longer text is cut


def read(file: Path) -> list[Row]:
    """Text and label of each row, in random order; what is there twice is taken once."""
    with file.open(encoding="latin-1", newline="") as stream:
        rows = list(dict.fromkeys((row["v2"], row["v1"]) for row in csv.DictReader(stream)))
    random.shuffle(rows)
    return rows


def batches(rows: list[Row], size: int, tokenizer: Any, ids: dict[str, int]) -> Iterator[Any]:
    """What the model takes for so many rows at a time, with their labels."""
    for start in range(0, len(rows), size):
        texts, labels = zip(*rows[start : start + size], strict=True)
        inputs = tokenizer(
            list(texts), padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        yield inputs | {"labels": torch.tensor([ids[label] for label in labels])}


def train_epoch(model: Any, found: Iterator[Any], optimizer: Any, schedule: Any) -> float:
    """One pass over the rows; the mean loss of the batches."""
    model.train()
    losses = []
    for inputs in found:
        loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.no_grad()
def accuracy(model: Any, found: Iterator[Any]) -> float:
    model.eval()
    right = [(model(**inputs).logits.argmax(1) == inputs["labels"]) for inputs in found]
    return torch.cat(right).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--frozen-layers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=os.environ.get("SM_CHANNEL_DATA", "data"))
    parser.add_argument("--base", type=Path, default=os.environ.get("SM_CHANNEL_BASE", "base"))
    parser.add_argument("--model-dir", type=Path, default=os.environ.get("SM_MODEL_DIR", "model"))
    options = parser.parse_args()

    logging.disable_progress_bar()
    random.seed(options.seed)
    torch.manual_seed(options.seed)
    rows = read(options.data / "spam.csv")
    held_out, kept = rows[: len(rows) // 5], rows[len(rows) // 5 :]
    labels = sorted({label for _, label in rows})
    ids = {label: number for number, label in enumerate(labels)}

    tokenizer = AutoTokenizer.from_pretrained(options.base)
    model = AutoModelForSequenceClassification.from_pretrained(
        options.base, num_labels=len(labels), id2label=dict(enumerate(labels)), label2id=ids
    )
    # The lower layers know the language already; leaving them as they are saves half of the time.
    model.base_model.embeddings.requires_grad_(False)
    model.base_model.encoder.layer[: options.frozen_layers].requires_grad_(False)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, options.learning_rate)
    steps = options.epochs * -(-len(kept) // options.batch_size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, total_iters=steps)

    for epoch in range(1, options.epochs + 1):
        random.shuffle(kept)
        found = batches(kept, options.batch_size, tokenizer, ids)
        loss = train_epoch(model, found, optimizer, schedule)
        right = accuracy(model, batches(held_out, options.batch_size, tokenizer, ids))
        print(f"epoch {epoch}  loss {loss:.4f}  accuracy {right:.4f}", flush=True)

    # config.json with the labels, model.safetensors and tokenizer.json: all that a server needs.
    model.save_pretrained(options.model_dir)
    tokenizer.save_pretrained(options.model_dir)


if __name__ == "__main__":
    main()
