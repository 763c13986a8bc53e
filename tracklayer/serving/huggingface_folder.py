"""What a Hugging Face folder says of its model: the type, what it answers, how it reads a text.

Read are ``config.json`` and ``tokenizer_config.json`` of transformers, and ``modules.json``,
``sentence_bert_config.json``, ``config_sentence_transformers.json`` and the folders that
``modules.json`` names, of sentence-transformers. Nothing in the folder is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from tracklayer.errors import ModelError
from tracklayer.serving import onnx, openvino
from tracklayer.serving.huggingface_encoder import position_rows
from tracklayer.serving.huggingface_graph import Weights
from tracklayer.serving.huggingface_heads import (
    POOLINGS,
    Classification,
    Embedding,
    Head,
    TokenClassification,
)
from tracklayer.serving.huggingface_outline import (
    CLASSIFIER,
    CONFIG,
    IMAGES,
    TAGGER,
    architecture,
    is_served,
    own_ir,
    own_onnx,
    read_document,
    read_json,
)
from tracklayer.serving.model import Array, Model

_LONGEST = 512
"""Tokens that are read of a text where no configuration says how many."""

_SWITCH = "pooling_mode"
_SWITCHES = {
    f"{_SWITCH}_cls_token": "cls",
    f"{_SWITCH}_max_tokens": "max",
    f"{_SWITCH}_mean_tokens": "mean",
}


@dataclass(frozen=True)
class Folder:
    """A model's description.

    :param path: where its configuration and weights are, and its tokenizer.
    :param beside: other folders, in which the tokenizer may be.
    :param longest: tokens that are read of a text.
    :param unknown: the token of what the tokenizer does not know.
    :param prompt: what stands before every text.
    """

    path: Path
    beside: Sequence[Path]
    config: Mapping[str, Any]
    head: Head
    longest: int
    unknown: str | None
    prompt: str = ""
    lower: bool = False

    def part(self, name: str) -> Path:
        """A file of the tokenizer."""
        return part(self.path, self.beside, name)

    def prepare(self, text: str) -> str:
        """The text as the tokenizer is to have it."""
        text = self.prompt + text
        return text.lower() if self.lower else text


def read(root: Path, beside: Sequence[Path] = ()) -> Folder:
    """Describe the text model in ``root``, the folder of its ``modules.json`` or ``config.json``.

    :param beside: see :class:`Folder`.
    :raises ModelError: something is missing or wrong there, or of a kind that is not served.
    """
    modules = _modules(root)
    path = _inside(root, modules[0]) if modules else root
    config = read_json(path / CONFIG) or {}
    if not isinstance(config.get("model_type"), str):
        raise ModelError(f"{(path / CONFIG).relative_to(root)} names no model_type")
    tokenizer = read_json(part(path, beside, "tokenizer_config.json")) or {}
    unknown = tokenizer.get("unk_token")
    sentences = (modules and read_json(path / "sentence_bert_config.json")) or {}
    prompts = (modules and read_json(root / "config_sentence_transformers.json")) or {}
    return Folder(
        path=path,
        beside=beside,
        config=config,
        head=_head(root, config, modules),
        longest=_longest(tokenizer, config, sentences),
        unknown=unknown.get("content") if isinstance(unknown, dict) else unknown,
        prompt=(prompts.get("prompts") or {}).get(prompts.get("default_prompt_name"), ""),
        lower=bool(sentences.get("do_lower_case")),
    )


def part(path: Path, beside: Sequence[Path], name: str) -> Path:
    """A file of a folder or, if it is not there, of one of those beside it."""
    found = (folder / name for folder in (path, *beside))
    return next((file for file in found if file.is_file()), path / name)


Build: TypeAlias = Callable[[Weights], tuple[bytes, dict[str, Array]]]
"""Makes a graph of weights, and the tensors that it names."""

Open: TypeAlias = Callable[[Path, str, Build, int], Model]
"""Opens the network of a folder; see :func:`open_network`."""


def open_network(path: Path, kind: str, build: Build, threads: int) -> Model:
    """The network of a folder: its own ONNX, the graph that is built of its weights, or its IR.

    :param kind: what the messages call it: the ``model_type``.
    :raises ModelError: the weights are missing or damaged, or ``build`` refuses them.
    """
    if own := own_onnx(path):
        return onnx.load(own, threads=threads)
    if ir := own_ir(path):
        return openvino.load(ir, threads=threads)
    graph, tensors = built(path, build)
    return onnx.open_graph(graph, kind, threads=threads, tensors=tensors)


def built(path: Path, build: Build) -> tuple[bytes, dict[str, Array]]:
    """The graph that is built of a folder's weights, and the tensors that it names."""
    return build(Weights(_weights(path)))


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


def _head(root: Path, config: Mapping[str, Any], modules: list[dict[str, Any]]) -> Head:
    kind = architecture(config)
    if kind.endswith(CLASSIFIER):
        return classification(config)
    if kind.endswith(TAGGER):
        return TokenClassification(_labels(config))
    if not is_served(config):
        raise ModelError(
            f"a {kind} is not served",
            hint="Served: sentence embeddings (a plain model), "
            f"...{CLASSIFIER}, ...{TAGGER} and ...{IMAGES}.",
        )
    return _embedding(root, int(config.get("hidden_size") or config.get("dim") or 0), modules)


def classification(config: Mapping[str, Any]) -> Classification:
    """What a classifier of texts or images answers.

    :raises ModelError: it has no labels, or a regression head.
    """
    labels, kind = _labels(config), config.get("problem_type")
    if kind == "regression":
        raise ModelError("a regression head is not served", hint="Export the model to ONNX.")
    # As the pipelines of transformers decide it.
    return Classification(labels, kind != "multi_label_classification" and len(labels) > 1)


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    names = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    try:
        return tuple(str(names[str(number)]) for number in range(len(names)))
    except (KeyError, TypeError) as error:
        raise ModelError("config.json: id2label must name the labels 0, 1, 2, ...") from error


def _embedding(root: Path, width: int, modules: list[dict[str, Any]]) -> Embedding:
    poolings: tuple[str, ...] = ("mean",)  # what sentence-transformers takes for a plain model
    normalised = False
    for module in modules[1:]:
        kind = str(module.get("type")).rpartition(".")[2]
        if kind == "Pooling":
            poolings = _poolings(read_json(_inside(root, module) / "config.json") or {})
        elif kind == "Normalize":
            normalised = True
        elif kind != "Dropout":
            raise ModelError(
                f"modules.json: the module {kind!r} is not served",
                hint="Served: Transformer, Pooling, Normalize.",
            )
    return Embedding(width, poolings, normalised)


def _poolings(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The poolings of a ``Pooling`` module: ``pooling_mode`` has their names, or, before version 6
    of sentence-transformers, there is a switch for each (``pooling_mode_mean_tokens``).
    """
    found = config.get(_SWITCH)
    if found is None:
        on = [key for key, value in config.items() if key.startswith(f"{_SWITCH}_") and value]
        found = sorted(_SWITCHES.get(key, key) for key in on) or ["mean"]
    modes = tuple(map(str, [found] if isinstance(found, str) else found))
    if not modes or not set(modes) <= set(POOLINGS) or config.get("include_prompt") is False:
        raise ModelError(
            f"this pooling is not served: {', '.join(modes) or 'none'}",
            hint=f"Served: {', '.join(POOLINGS)}, with the prompt.",
        )
    return modes


def _longest(
    tokenizer: Mapping[str, Any], config: Mapping[str, Any], sentences: Mapping[str, Any]
) -> int:
    limits = (
        sentences.get("max_seq_length"),
        tokenizer.get("model_max_length"),
        position_rows(config),
    )
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and limit > 0]
    return min(known, default=_LONGEST)


def _modules(root: Path) -> list[dict[str, Any]]:
    modules = read_document(root / "modules.json")
    if modules is None:
        return []
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelError("modules.json must be an array of objects")
    return modules


def _inside(root: Path, module: Mapping[str, Any]) -> Path:
    path = PurePosixPath(str(module.get("path", "")))
    if path.is_absolute() or ".." in path.parts:
        raise ModelError(f"modules.json: {path} leads out of the model folder")
    return root / path
