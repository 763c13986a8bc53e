"""From a model folder to the one network in it that can be optimised, and back.

The network of an ONNX model is the model. That of a Hugging Face folder lies between its tokenizer
or image processor and its head, which stay as they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracklayer.optimize.holdout import FILES
from tracklayer.serving import onnx
from tracklayer.serving.formats import recognise
from tracklayer.serving.huggingface_outline import own_ir, own_onnx
from tracklayer.serving.model import Array, Call, Model, Signature
from tracklayer.serving.verification import FILE as GOLDEN

ONNX, IR = "model.onnx", "openvino_model.xml"
"""How a candidate is called in the folder that it is built in, and in a Hugging Face folder."""

_LEFT_OUT = (".safetensors", ".safetensors.index.json", ".onnx", ".onnx_data", ".onnx.data", ".bin")
_LARGEST = 1 << 30
"""Bytes of weights from which on they lie in a file of their own: protobuf ends at 2 GiB."""


@dataclass(frozen=True)
class Network:
    """What is optimised: an ONNX file, and what is put into it as the model answers.

    :param place: folder of the network's files, relative to the model folder.
    """

    graph: Path
    place: Path
    recorder: Recorder


class Recorder:
    """A model that keeps what it is asked, while ``feeds`` is a list."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.platform: str = model.platform
        self.signature: Signature = model.signature
        self.feeds: list[dict[str, Array]] | None = None

    def call(self) -> Call:
        """See :class:`tracklayer.serving.model.Model`."""
        return self._model.call()

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], call: Call) -> list[Array]:
        """See :class:`tracklayer.serving.model.Model`."""
        if self.feeds is not None:
            self.feeds.append({name: array.copy() for name, array in feeds.items()})
        return self._model.run(feeds, outputs, call)


def lack(folder: Path) -> str:
    """Why the model of a folder cannot be optimised; empty if it can.

    :raises ModelError: there is no model.
    """
    found = recognise(folder)
    kinds = ("onnx", "huggingface")
    is_ir = found.name == "huggingface" and any(own_ir(path) for path in _folders(found.path))
    if found.name in kinds and not is_ir:
        return ""
    name = "openvino" if is_ir else found.name
    return f"a model of the format {name} is served as it is; optimised are {' and '.join(kinds)}"


def _folders(path: Path) -> list[Path]:
    return [path, *(inner for inner in path.iterdir() if inner.is_dir())]


def opened(folder: Path, work: Path) -> tuple[Model, Network]:
    """The model of a folder as it is served, and the network in it.

    :param work: an empty folder for the ONNX file, if there is none yet.
    :raises ModelError: it cannot be loaded.
    """
    found = recognise(folder)
    if found.name == "huggingface":
        return _of_hugging_face(found.path, work)
    recorder = Recorder(onnx.load(found.path))
    return recorder, Network(found.path, Path(), recorder)


def _of_hugging_face(root: Path, work: Path) -> tuple[Model, Network]:
    from tracklayer.serving import huggingface
    from tracklayer.serving.huggingface_folder import Build, built

    networks: list[Network] = []

    def opener(path: Path, _kind: str, build: Build, threads: int) -> Model:
        own = own_onnx(path)
        graph = own or work / ONNX
        if not own:
            write(*built(path, build), graph)
        recorder = Recorder(onnx.load(graph, threads=threads))
        networks.append(Network(graph, path.relative_to(root), recorder))
        return recorder

    return huggingface.load(root, network=opener), networks[0]


def write(graph: bytes, tensors: Mapping[str, Array], file: Path) -> None:
    """An ONNX file with the tensors that the graph says lie outside of it."""
    import onnx
    from onnx import TensorProto, numpy_helper

    model = onnx.load_from_string(graph)
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.CopyFrom(numpy_helper.from_array(tensors[tensor.name], tensor.name))
    large = sum(array.nbytes for array in tensors.values()) > _LARGEST
    onnx.save_model(
        model, file, save_as_external_data=large, location=f"{file.name}.data" if large else None
    )


def is_large(graph: Path) -> bool:
    """Does an ONNX file need a second one for its weights?"""
    return sum(file.stat().st_size for file in (graph, *weights(graph).values())) > _LARGEST


def weights(graph: Path) -> dict[str, Path]:
    """The files beside an ONNX file that have its weights, by what it calls them."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    tensors = onnx.load(graph, load_external_data=False).graph.initializer
    outside = {ExternalDataInfo(t).location for t in tensors if uses_external_data(t)}
    return {place: graph.parent / place for place in outside}


def dims(signature: Signature) -> dict[str, list[int | str]]:
    """The axes of every input and output, by name."""
    return {tensor.name: list(tensor.dims) for tensor in (*signature.inputs, *signature.outputs)}


def assemble(folder: Path, place: Path, network: Path, target: Path) -> None:
    """A model folder in which the network is another one.

    :param folder: the model as it was registered.
    :param place: see :class:`Network`.
    :param network: a folder with the files of a candidate and nothing else.
    :param target: is made.
    """
    found = recognise(folder)
    if found.name == "huggingface":
        shutil.copytree(found.path, target, ignore=_left_out)
        target = target / place / ("openvino" if (network / IR).exists() else "onnx")
    shutil.copytree(network, target, dirs_exist_ok=True)


def _left_out(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name.endswith(_LEFT_OUT) or name in (*FILES, GOLDEN)}
