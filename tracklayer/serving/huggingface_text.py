"""Hugging Face text encoders: embeddings, the labels of texts, and the entities in them.

A text goes through the folder's ``tokenizer.json``, and its tokens through onnxruntime.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tracklayer.errors import ModelError
from tracklayer.serving import huggingface_encoder as encoder
from tracklayer.serving.huggingface_folder import Folder, Open, open_network, read
from tracklayer.serving.huggingface_heads import Run, Texts
from tracklayer.serving.huggingface_outline import TOKENIZER
from tracklayer.serving.model import (
    DATATYPES,
    Array,
    Call,
    Model,
    RequestError,
    Signature,
    Tensor,
)

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TEXT = "text"
"""Name of the only input: BYTES ``[batch]``."""

_TYPES = "token_type_ids"
_INPUTS = frozenset({encoder.IDS, encoder.MASK, _TYPES})
"""What an encoder may ask for: the tokens' numbers, where they are, and zeros."""

_TOKENS = 4096
"""Tokens, padding included, of one run of the network: what bounds its memory."""


def load(
    path: Path, *, threads: int, beside: Sequence[Path] = (), network: Open = open_network
) -> TextModel:
    """Load the text model of a folder; see :func:`tracklayer.serving.huggingface.load`."""
    folder = read(path, beside)
    opened = network(
        folder.path,
        folder.config["model_type"],
        lambda weights: encoder.build(folder.config, weights, folder.head.task),
        threads,
    )
    return TextModel(folder, _tokenizer(folder), opened)


class TextModel:
    """A tokenizer, an encoder in an onnxruntime session, and what is made of its output."""

    platform = "huggingface_transformers"

    def __init__(self, folder: Folder, tokenizer: Tokenizer, network: Model) -> None:
        """
        :raises ModelError: the network does not take tokens, or does not give what is wanted.
        """
        self._folder = folder
        self._network = network
        self._head = head = folder.head
        self._tokenizer = tokenizer
        # The fast way is the one that does not say where in the text a token is.
        self._encode = tokenizer.encode_batch if head.offsets else tokenizer.encode_batch_fast
        self.signature = Signature((Tensor(TEXT, "BYTES", ("batch",)),), head.outputs)
        takes = network.signature.by_name
        if not {encoder.IDS} <= takes.keys() <= _INPUTS:
            raise ModelError(
                f"the ONNX model takes {', '.join(takes)}, which are not the tokens of a text",
                hint=f"Served: {', '.join(sorted(_INPUTS))}.",
            )
        self._inputs = {name: DATATYPES[tensor.datatype] for name, tensor in takes.items()}
        gives = network.signature.output_names
        if not (wanted := [name for name in head.network if name in gives]):
            raise ModelError(
                f"the ONNX model gives {', '.join(gives)}, and not {' or '.join(head.network)}"
            )
        self._output = wanted[0]
        self._probe()

    def call(self) -> Call:
        """A handle with which a run can be ended."""
        return self._network.call()

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], call: Call) -> list[Array]:
        """The named outputs; see :class:`tracklayer.serving.model.Model`.

        Texts of like length are run together: what is padding costs as much as what is text.
        """
        texts = [self._folder.prepare(text) for text in feeds[TEXT].tolist()]
        encodings = self._encode(texts)
        found = Texts(texts, encodings, self._join, self._folder.unknown)
        results = self._head.answer(found, self._runs(encodings, call))
        by_name = dict(zip(self.signature.output_names, results, strict=True))
        return [by_name[name] for name in outputs]

    def _join(self, tokens: list[str]) -> str:
        decoder = self._tokenizer.decoder
        return str(decoder.decode(tokens)) if decoder else " ".join(tokens)

    def _probe(self) -> None:
        try:
            width = self._encoded([[0]], self.call())[0].shape[-1]
        except RequestError as error:
            raise ModelError(f"the network cannot read a text: {error.message}") from error
        if width != self._head.width:
            raise ModelError(
                f"the network gives {width} numbers, and config.json promises {self._head.width}"
            )

    def _runs(self, encodings: Sequence[Encoding], call: Call) -> Iterator[Run]:
        tokens = [encoding.ids for encoding in encodings]
        for rows in _batches(np.array([len(ids) for ids in tokens], dtype=np.int64)):
            yield Run(rows, *self._encoded([tokens[row] for row in rows], call))

    def _encoded(self, tokens: list[list[int]], call: Call) -> tuple[Array, Array]:
        """What the network makes of tokens, and the mask of where they are."""
        lengths = np.array([len(ids) for ids in tokens])
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = np.fromiter(chain.from_iterable(tokens), np.int64, lengths.sum())
        known = {encoder.IDS: ids, encoder.MASK: mask, _TYPES: np.zeros_like(ids)}
        feeds = {name: known[name].astype(dtype) for name, dtype in self._inputs.items()}
        [encoded] = self._network.run(feeds, [self._output], call)
        return encoded, mask


def _batches(lengths: Array) -> Iterator[Array]:
    """The rows of each run, the longest texts first."""
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        count = max(1, _TOKENS // max(1, int(lengths[order[0]])))
        yield order[:count]
        order = order[count:]


def _tokenizer(folder: Folder) -> Tokenizer:
    from tokenizers import Tokenizer

    file = folder.part(TOKENIZER)
    if not file.is_file():
        raise ModelError(
            f"{TOKENIZER} is missing: without it no text can be read",
            hint="Save a fast tokenizer into the folder: tokenizer.save_pretrained(...).",
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    # The library raises Exception itself.
    except Exception as error:
        raise ModelError(f"{TOKENIZER} cannot be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(folder.longest)
    return tokenizer
