"""The golden request: what a deployment must answer rightly before it takes traffic.

``golden.json`` in the model folder gives it: ``{"inputs": [...], "outputs": [...]}`` with the
tensors of the Open Inference Protocol; ``outputs``, the expected answer, may be left out. Without
the file an input is made from the model's signature, always the same for the same signature.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracklayer.errors import ModelError, ServiceError

if TYPE_CHECKING:
    from tracklayer.serving.model import Array, Model

FILE = "golden.json"
RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""Tolerance of a value: ``ABSOLUTE + RELATIVE * |expected|`` (numpy.allclose)."""

_SIZES = (1, 8, 16, 32, 64, 224)
"""Sizes tried for the free axes, the first one (the batch) aside, which is 1."""

_TEXT = "Is this what you expected, or would you like something else?"

_ADVICE = f'Put a {FILE} with {{"inputs": [...]}} into SM_MODEL_DIR.'


@dataclass(frozen=True, slots=True)
class Golden:
    """A request (Open Inference Protocol, JSON) and the outputs that must come back."""

    request: dict[str, Any]
    response: dict[str, Any]

    def check(self, response: Mapping[str, Any]) -> None:
        """Is ``response`` the expected one? Names, shapes and data types exactly, values closely.

        :raises ServiceError: no; says the first thing that differs.
        """
        if difference := _difference(self.response, response):
            raise ServiceError(f"the golden request was answered wrongly: {difference}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON-serialisable data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Golden:
        """The inverse of :meth:`to_dict`."""
        return cls(request=data["request"], response=data["response"])


def golden(folder: Path, *, allow: Collection[str] = ()) -> Golden:
    """The golden request of the model in ``folder``, answered by the model here and now.

    A model that brings code of its own answers in a process of its own, which sees nothing of this
    one's environment but what jobs see.

    :param allow: see :func:`tracklayer.serving.formats.load`.
    :raises ModelError: no model, a wrong ``golden.json``, a model that does not give the outputs
        that the file expects, or one for which no request could be made.
    """
    from tracklayer.serving.formats import recognise

    if recognise(folder).needs:
        from tracklayer.serving.proof import golden_apart

        return golden_apart(folder, allow)
    return golden_here(folder, allow)


def golden_here(folder: Path, allow: Collection[str]) -> Golden:
    """As :func:`golden`, always in this process."""
    from tracklayer.serving.formats import load

    model = load(folder, allow=allow)
    request = request_for(model, folder)
    response = {"outputs": _run(model, feeds_of(model, request))}
    document = declared(folder)
    if document and "outputs" in document:
        expected = {"outputs": document["outputs"]}
        if difference := _difference(expected, response):
            raise ModelError(f"the model does not give what {FILE} expects: {difference}")
        response = expected
    return Golden(request, response)


def request_for(model: Model, folder: Path) -> dict[str, Any]:
    """The golden request for a loaded model: from ``golden.json``, or made from the signature.

    :raises ModelError: the file is wrong, or nothing that was tried suits the model.
    """
    if document := declared(folder):
        request = {"inputs": document["inputs"]}
        feeds_of(model, request)
        return request
    return _made(model)


def declared(folder: Path) -> dict[str, Any] | None:
    """What ``golden.json`` says; None if there is none.

    :raises ModelError: it is no such document.
    """
    import orjson

    try:
        document = orjson.loads((folder / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except orjson.JSONDecodeError as error:
        raise ModelError(f"{FILE} is not valid JSON: {error}") from error
    if type(document) is not dict or not {"inputs"} <= document.keys() <= {"inputs", "outputs"}:
        raise ModelError(f"{FILE} must be an object with 'inputs' and, if wanted, 'outputs'")
    for index, output in enumerate(document.get("outputs", ())):
        if type(output) is not dict or output.keys() != {"name", "shape", "datatype", "data"}:
            raise ModelError(
                f"{FILE}: outputs[{index}] must be an object with name, shape, datatype and data"
            )
    return document


def feeds_of(model: Model, request: Mapping[str, Any]) -> dict[str, Array]:
    """What a golden request puts into a model.

    :raises ModelError: it does not suit the model.
    """
    from tracklayer.serving.model import RequestError
    from tracklayer.serving.open_inference import read

    try:
        return read(model, request)[0]
    except RequestError as refused:
        raise ModelError(f"{FILE} does not suit the model: {refused.message}") from refused


def _run(model: Model, feeds: Mapping[str, Array]) -> list[dict[str, Any]]:
    import numpy as np

    from tracklayer.serving.model import RequestError

    tensors = model.signature.outputs
    try:
        results = model.run(feeds, model.signature.output_names, model.call())
    except RequestError as refused:
        raise ModelError(f"{FILE}: {refused.message}") from refused
    for tensor, result in zip(tensors, results, strict=True):
        if result.dtype.kind == "f" and not np.isfinite(result).all():
            raise ModelError(
                f"the model's output {tensor.name!r} is NaN or infinite for the golden request",
                hint=_ADVICE,
            )
    return [
        {
            "name": tensor.name,
            "shape": list(result.shape),
            "datatype": tensor.datatype,
            "data": result.ravel().tolist(),
        }
        for tensor, result in zip(tensors, results, strict=True)
    ]


def _made(model: Model) -> dict[str, Any]:
    """A request made from the signature, which the model takes.

    :raises ModelError: it takes none of those that were tried.
    """
    from tracklayer.serving.model import RequestError

    reason = ""
    for size in _SIZES:
        arrays = _arrays(model, size)
        try:
            model.run(arrays, model.signature.output_names, model.call())
        except RequestError as refused:
            reason = refused.message
            continue
        return {
            "inputs": [
                {
                    "name": tensor.name,
                    "shape": list(arrays[tensor.name].shape),
                    "datatype": tensor.datatype,
                    "data": arrays[tensor.name].ravel().tolist(),
                }
                for tensor in model.signature.inputs
            ]
        }
    raise ModelError(f"no golden request could be made for the model: {reason}", hint=_ADVICE)


def _arrays(model: Model, size: int) -> dict[str, Array]:
    """Seeded inputs: numbers from 0 to 1 in steps of 1/256, which every float type holds exactly;
    integers 0 and 1, which are valid as tokens, indices and masks; a sentence as text. Or the
    examples that the signature has."""
    import numpy as np

    from tracklayer.serving.model import DATATYPES

    random = np.random.default_rng(0)
    arrays: dict[str, Array] = {}
    for tensor in model.signature.inputs:
        shape = [
            dim if isinstance(dim, int) else (1 if axis == 0 else size)
            for axis, dim in enumerate(tensor.dims)
        ]
        dtype = DATATYPES[tensor.datatype]
        if tensor.example is not None or dtype.kind == "O":
            value = _TEXT if tensor.example is None else tensor.example
            arrays[tensor.name] = np.full(shape, value, dtype=dtype)
        elif dtype.kind == "f":
            # Without an axis NumPy gives a number, which is no array.
            numbers = np.asarray(random.integers(0, 257, shape) / 256)
            arrays[tensor.name] = numbers.astype(dtype)
        else:
            arrays[tensor.name] = np.asarray(random.integers(0, 2, shape)).astype(dtype)
    return arrays


def _difference(expected: Mapping[str, Any], response: Mapping[str, Any]) -> str | None:
    outputs = response.get("outputs")
    if type(outputs) is not list or not all(type(output) is dict for output in outputs):
        return f"no outputs, but {str(dict(response))[:300]}"
    names = [output.get("name") for output in outputs]
    wanted = [output["name"] for output in expected["outputs"]]
    if sorted(map(str, names)) != sorted(wanted):
        return f"outputs {names} instead of {wanted}"
    by_name = {output["name"]: output for output in outputs}
    for output in expected["outputs"]:
        if difference := _differs(output, by_name[output["name"]]):
            return f"output {output['name']!r}: {difference}"
    return None


def _differs(expected: Mapping[str, Any], output: Mapping[str, Any]) -> str | None:
    import numpy as np

    for key in ("datatype", "shape"):
        if output.get(key) != expected[key]:
            return f"{key} {output.get(key)} instead of {expected[key]}"
    # Integers, booleans and strings have no tolerance.
    kind = float if expected["datatype"].startswith("FP") else object
    try:
        want, got = (np.array(tensor["data"], dtype=kind).ravel() for tensor in (expected, output))
    except (KeyError, TypeError, ValueError):
        return f"data is {str(output.get('data'))[:100]}"
    if want.shape != got.shape:
        return f"{got.size} values instead of {want.size}"
    same = want == got if kind is object else np.isclose(got, want, RELATIVE, ABSOLUTE)
    if not same.all():
        index = int(np.argmin(same))
        return f"value {index} is {got[index]} instead of {want[index]}"
    return None
