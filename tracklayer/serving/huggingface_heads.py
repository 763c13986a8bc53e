"""From what a text encoder computes to what is answered: an embedding, or a label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tracklayer.serving.model import Array, Tensor


class Head(Protocol):
    """The last step of a text model."""

    @property
    def network(self) -> tuple[str, ...]:
        """The encoder's output that is wanted: its possible names, the preferred one first."""
        ...

    @property
    def width(self) -> int:
        """Size of that output's last axis."""
        ...

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """What is answered; the first axis of each is the batch."""
        ...

    def __call__(self, encoded: Array, mask: Array, /) -> list[Array]:
        """The outputs for a batch.

        :param encoded: FP32, the encoder's output.
        :param mask: BOOL ``[batch, tokens]``, true where a token is.
        """
        ...


POOLINGS = ("cls", "max", "mean")
"""What becomes one vector: the first token's, the largest values, the mean."""


@dataclass(frozen=True)
class Embedding:
    """One vector a text: pooled over its tokens, of length one if ``normalised``.

    Sources: ``Pooling`` and ``Normalize`` of sentence-transformers
    (https://github.com/huggingface/sentence-transformers).

    :param poolings: of :data:`POOLINGS`; several are joined.
    """

    width: int
    poolings: tuple[str, ...]
    normalised: bool
    network = ("last_hidden_state", "token_embeddings")

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """``embedding``."""
        return (Tensor("embedding", "FP32", ("batch", self.width * len(self.poolings))),)

    def __call__(self, encoded: Array, mask: Array) -> list[Array]:
        """See :class:`Head`; ``encoded`` is ``[batch, tokens, width]``."""
        found = [_pooled(pooling, encoded, mask) for pooling in self.poolings]
        vectors = np.concatenate(found, axis=1)
        if self.normalised:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(lengths, np.float32(1e-12))
        return [vectors]


@dataclass(frozen=True)
class Classification:
    """The best label of a text.

    :param exclusive: one label only is right: the probabilities add up to 1.
    """

    labels: tuple[str, ...]
    exclusive: bool
    network = ("logits",)

    @property
    def width(self) -> int:
        """How many labels there are."""
        return len(self.labels)

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """``label``, ``score`` and the ``probabilities`` of all labels, in the model's order."""
        return (
            Tensor("label", "BYTES", ("batch",)),
            Tensor("score", "FP32", ("batch",)),
            Tensor("probabilities", "FP32", ("batch", len(self.labels))),
        )

    def __call__(self, encoded: Array, _mask: Array) -> list[Array]:
        """See :class:`Head`; ``encoded`` is ``[batch, labels]``."""
        probabilities = _softmax(encoded) if self.exclusive else np.exp(-np.logaddexp(0, -encoded))
        names = np.array(self.labels, dtype=object)
        return [names[probabilities.argmax(1)], probabilities.max(1), probabilities]


def _pooled(pooling: str, encoded: Array, mask: Array) -> Array:
    """``[batch, width]`` from ``[batch, tokens, width]``."""
    if pooling == "cls":
        return encoded[:, 0]
    if pooling == "max":
        lowest = np.finfo(np.float32).min
        return np.asarray(np.where(mask[:, :, None], encoded, lowest).max(1))
    weights = mask[:, None, :].astype(np.float32)
    return np.asarray((weights @ encoded)[:, 0] / weights.sum(2))


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))
