"""Hugging Face folders: text encoders of the BERT family, for embeddings and classification.

The weights (safetensors) become an ONNX graph in memory, or the folder's own ONNX is taken; the
text goes through its ``tokenizer.json``. Neither PyTorch nor transformers is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tracklayer.errors import ModelError
from tracklayer.serving import huggingface_encoder as encoder
from tracklayer.serving import onnx
from tracklayer.serving.huggingface_folder import Folder, is_served, read, read_json
from tracklayer.serving.model import DATATYPES, Array, Call, RequestError, Signature, Tensor

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tracklayer.serving.onnx import OnnxModel

TEXT = "text"
"""Name of the only input: BYTES ``[batch]``."""

_TYPES = "token_type_ids"
_INPUTS = frozenset({encoder.IDS, encoder.MASK, _TYPES})
"""What an encoder may ask for: the tokens' numbers, where they are, and zeros."""

_OWN = ("model.onnx", "onnx/model.onnx")
_TOKENIZER = "tokenizer.json"
_SAFE = ".safetensors"

_TOKENS = 4096
"""Tokens, padding included, of one run of the network: what bounds its memory."""


def find(files: Sequence[Path]) -> list[Path]:
    """The folders among those of ``files`` with a model's ``config.json`` and its weights.

    Folders inside of such a one (checkpoints, exports) belong to it.
    """
    there = set(files)
    found = {
        # sentence-transformers may keep the encoder in a folder of its own.
        file.parent.parent if file.parent.parent / "modules.json" in there else file.parent
        for file in files
        if file.name == "config.json" and _is_model(file, there)
    }
    return sorted(path for path in found if not found.intersection(path.parents))


def load(path: Path, *, threads: int = 1) -> TextModel:
    """Load the model of a folder.

    :raises ModelError: a part of it is missing, damaged, or of a kind that is not served.
    """
    try:
        folder = read(path)
        own = next((folder.path / name for name in _OWN if (folder.path / name).is_file()), None)
        network = onnx.load(own, threads=threads) if own else _network(folder, threads)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelError(
            f"the model's configuration is not as transformers writes it: {error!r}",
            hint="Save the model again, with save_pretrained.",
        ) from error
    return TextModel(folder, _tokenizer(folder), network)


class TextModel:
    """A tokenizer, an encoder in an onnxruntime session, and what is made of its output."""

    platform = "huggingface_transformers"

    def __init__(self, folder: Folder, tokenizer: Tokenizer, network: OnnxModel) -> None:
        """
        :raises ModelError: the network does not take tokens, or does not give what is wanted.
        """
        self._folder = folder
        self._network = network
        self._encode = tokenizer.encode_batch_fast
        self._head = head = folder.head
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
        tokens = [encoding.ids for encoding in self._encode(texts)]
        results = {
            tensor.name: np.empty((len(texts), *tensor.shape[1:]), DATATYPES[tensor.datatype])
            for tensor in self._head.outputs
        }
        for rows in _batches(np.array([len(ids) for ids in tokens], dtype=np.int64)):
            answers = self._head(*self._encoded([tokens[row] for row in rows], call))
            for result, answer in zip(results.values(), answers, strict=True):
                result[rows] = answer
        return [results[name] for name in outputs]

    def _probe(self) -> None:
        try:
            width = self._encoded([[0]], self.call())[0].shape[-1]
        except RequestError as error:
            raise ModelError(f"the network cannot read a text: {error.message}") from error
        if width != self._head.width:
            raise ModelError(
                f"the network gives {width} numbers, and config.json promises {self._head.width}"
            )

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


def _is_model(config: Path, there: set[Path]) -> bool:
    try:
        found = read_json(config)
    except ModelError:
        return False
    if found is None or not isinstance(found.get("model_type"), str):
        return False
    folder = config.parent
    if any(folder / name in there for name in _OWN):
        # What is no text, or another task, is served as the ONNX model that it is.
        return folder / _TOKENIZER in there and is_served(found)
    return any(file.parent == folder and file.suffix == _SAFE for file in there)


def _network(folder: Folder, threads: int) -> OnnxModel:
    weights = encoder.Weights(_weights(folder.path))
    graph, tensors = encoder.build(folder.config, weights, folder.head.network[0])
    return onnx.open_graph(graph, folder.config["model_type"], threads=threads, tensors=tensors)


def _weights(path: Path) -> list[Path]:
    """The files of the weights: the only one, or those that an index lists."""
    if index := read_json(path / "model.safetensors.index.json"):
        names = sorted({Path(str(name)).name for name in (index.get("weight_map") or {}).values()})
    else:
        names = ["model.safetensors"]
    if missing := [name for name in names if not (path / name).is_file()]:
        raise ModelError(
            f"the weights {missing[0]} are missing", hint="Save the model with save_pretrained."
        )
    return [path / name for name in names]


def _tokenizer(folder: Folder) -> Tokenizer:
    from tokenizers import Tokenizer

    file = folder.path / _TOKENIZER
    if not file.is_file():
        raise ModelError(
            f"{_TOKENIZER} is missing: without it no text can be read",
            hint="Save a fast tokenizer into the folder: tokenizer.save_pretrained(...).",
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    # The library raises Exception itself.
    except Exception as error:
        raise ModelError(f"{_TOKENIZER} cannot be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(folder.longest)
    return tokenizer
