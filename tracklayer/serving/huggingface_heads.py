"""From what a text encoder computes to what is answered: an embedding, a label, or entities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from tracklayer.serving.huggingface_encoder import Task
from tracklayer.serving.model import DATATYPES, Array, Tensor

if TYPE_CHECKING:
    from tokenizers import Encoding


class Run(NamedTuple):
    """What the encoder gave for some of the texts.

    :param rows: which of the texts.
    :param encoded: FP32, the encoder's output.
    :param mask: BOOL ``[batch, tokens]``, true where a token is.
    """

    rows: Array
    encoded: Array
    mask: Array


class Texts(NamedTuple):
    """Texts, and what the tokenizer made of them.

    :param join: the words of tokens that stand behind one another.
    :param unknown: the token of what the tokenizer does not know.
    """

    texts: Sequence[str]
    encodings: Sequence[Encoding]
    join: Callable[[list[str]], str]
    unknown: str | None


class Head(Protocol):
    """The last step of a text model."""

    @property
    def task(self) -> Task:
        """What is wanted of the encoder."""
        ...

    @property
    def network(self) -> tuple[str, ...]:
        """The encoder's output that is wanted: its possible names, the preferred one first."""
        ...

    @property
    def offsets(self) -> bool:
        """Are the places of the tokens in the text wanted?"""
        ...

    @property
    def width(self) -> int:
        """Size of the last axis of the encoder's output."""
        ...

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """What is answered."""
        ...

    def answer(self, texts: Texts, runs: Iterable[Run], /) -> list[Array]:
        """The outputs for the texts, each of which is in one of the runs."""
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
    task: Task = "encode"
    network = ("last_hidden_state", "token_embeddings")
    offsets = False

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """``embedding``."""
        return (Tensor("embedding", "FP32", ("batch", self.width * len(self.poolings))),)

    def answer(self, texts: Texts, runs: Iterable[Run]) -> list[Array]:
        """See :class:`Head`; the runs' output is ``[batch, tokens, width]``."""
        return _rows(self.outputs, texts, ((run, self._vectors(run)) for run in runs))

    def _vectors(self, run: Run) -> list[Array]:
        found = [_pooled(pooling, run.encoded, run.mask) for pooling in self.poolings]
        vectors = np.concatenate(found, axis=1)
        if self.normalised:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(lengths, np.float32(1e-12))
        return [vectors]


@dataclass(frozen=True)
class Classification:
    """The best label of a text, or of anything else that has scores.

    :param exclusive: one label only is right: the probabilities add up to 1.
    """

    labels: tuple[str, ...]
    exclusive: bool
    task: Task = "classify"
    network = ("logits",)
    offsets = False

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

    def answer(self, texts: Texts, runs: Iterable[Run]) -> list[Array]:
        """See :class:`Head`; the runs' output is ``[batch, labels]``."""
        return _rows(self.outputs, texts, ((run, self.judge(run.encoded)) for run in runs))

    def judge(self, scores: Array) -> list[Array]:
        """The outputs for scores ``[batch, labels]``."""
        probabilities = _softmax(scores) if self.exclusive else np.exp(-np.logaddexp(0, -scores))
        names = np.array(self.labels, dtype=object)
        return [names[probabilities.argmax(1)], probabilities.max(1), probabilities]


class Entity(NamedTuple):
    """Tokens of one text that belong together; ``row`` is the number of the text."""

    row: int
    label: str
    score: float
    word: str
    start: int
    end: int


@dataclass(frozen=True)
class TokenClassification:
    """The entities of a text: tokens behind one another that have the same label.

    Source: the token-classification pipeline of transformers with
    ``aggregation_strategy="simple"`` (``pipelines/token_classification.py``). ``B-`` begins an
    entity, ``I-`` goes on with one, and ``O`` is none.
    """

    labels: tuple[str, ...]
    task: Task = "classify tokens"
    network = ("logits",)
    offsets = True

    @property
    def width(self) -> int:
        """How many labels there are."""
        return len(self.labels)

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """One value an entity: the number of its text in the request, its label without the
        prefix, the mean of its tokens' scores, its words, and where in the text it begins and ends.
        """
        kinds = {"row": "INT64", "label": "BYTES", "score": "FP32", "word": "BYTES"}
        kinds |= {"start": "INT64", "end": "INT64"}
        return tuple(Tensor(name, datatype, ("entities",)) for name, datatype in kinds.items())

    def answer(self, texts: Texts, runs: Iterable[Run]) -> list[Array]:
        """See :class:`Head`; the runs' output is ``[batch, tokens, labels]``."""
        found = [
            entity
            for run in runs
            for row, scores in zip(run.rows.tolist(), _softmax(run.encoded), strict=True)
            for entity in self._entities(texts, row, scores)
        ]
        found.sort(key=lambda entity: entity.row)
        columns = zip(*found, strict=True) if found else ((),) * len(Entity._fields)
        return [
            np.array(list(column), dtype=DATATYPES[tensor.datatype])
            for tensor, column in zip(self.outputs, columns, strict=True)
        ]

    def _entities(self, texts: Texts, row: int, scores: Array) -> Iterator[Entity]:
        """
        :param scores: ``[tokens, labels]`` of one text.
        """
        text, encoding = texts.texts[row], texts.encodings[row]
        best, highest = scores.argmax(1).tolist(), scores.max(1)
        groups: list[tuple[str, list[int]]] = []
        for place, special in enumerate(encoding.special_tokens_mask):
            if special:
                continue
            name = self.labels[best[place]]
            label = name[2:] if name.startswith(("B-", "I-")) else name
            if groups and groups[-1][0] == label and not name.startswith("B-"):
                groups[-1][1].append(place)
            else:
                groups.append((label, [place]))
        for label, places in groups:
            if label == "O":
                continue
            spans = [encoding.offsets[place] for place in places]
            tokens = [encoding.tokens[place] for place in places]
            words = [
                text[slice(*span)] if token == texts.unknown else token
                for token, span in zip(tokens, spans, strict=True)
            ]
            score = float(highest[places].mean())
            yield Entity(row, label, score, texts.join(words), spans[0][0], spans[-1][1])


def _rows(
    outputs: Sequence[Tensor], texts: Texts, found: Iterable[tuple[Run, list[Array]]]
) -> list[Array]:
    """One row a text, from those of each run."""
    count = len(texts.encodings)
    results = [
        np.empty((count, *tensor.shape[1:]), DATATYPES[tensor.datatype]) for tensor in outputs
    ]
    for run, answers in found:
        for result, answer in zip(results, answers, strict=True):
            result[run.rows] = answer
    return results


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
    """Over the last axis."""
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))
