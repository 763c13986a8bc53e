"""The tensors of the protocol's gRPC messages: typed contents, or raw bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tracklayer.serving import binary
from tracklayer.serving.http import Service
from tracklayer.serving.model import Array, Model, RequestError, Tensor
from tracklayer.serving.open_inference import Request, check_output, check_parameters, input_of
from tracklayer.serving.protocol import open_inference_pb2 as messages
from tracklayer.serving.tensors import check_finite, decode

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Data type -> the field that its values are in; FP16 has none."""


def read(model: Model, message: messages.ModelInferRequest) -> Request:
    """What an inference request asks for; the outputs come as the inputs came.

    :raises RequestError: (400) the request breaks the protocol or does not fit the model.
    """
    _check_parameters(message.parameters, "the request")
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise RequestError(
            400, f"raw_input_contents has {len(raw)} items for {len(message.inputs)} inputs"
        )
    feeds: dict[str, Array] = {}
    for index, item in enumerate(message.inputs):
        where = f"inputs[{index}]"
        tensor = input_of(model, item.name, item.datatype, feeds, where)
        where = f"{where} {item.name!r}"
        _check_parameters(item.parameters, where)
        if not raw:
            feeds[item.name] = _typed(tensor, item, where)
        elif item.HasField("contents"):
            raise RequestError(400, f"{where}: either contents or raw_input_contents, not both")
        else:
            data = memoryview(raw[index])
            feeds[item.name] = binary.decode(tensor, list(item.shape), data, where)
    model.signature.check(feeds)
    wanted: list[str] = []
    for index, output in enumerate(message.outputs):
        where = f"outputs[{index}]"
        check_output(model, output.name, wanted, where)
        _check_parameters(output.parameters, where)
        wanted.append(output.name)
    wanted = wanted or model.signature.output_names
    halves = any(t.datatype == "FP16" for t in model.signature.outputs if t.name in wanted)
    return Request(feeds, wanted, frozenset(wanted if raw or halves else ()))


def answer(
    service: Service, identifier: str, request: Request, results: Sequence[Array]
) -> messages.ModelInferResponse:
    """The message of the results."""
    response = messages.ModelInferResponse(
        model_name=service.name, model_version=service.version, id=identifier
    )
    by_name = {tensor.name: tensor for tensor in service.model.signature.outputs}
    for name, array in zip(request.outputs, results, strict=True):
        tensor = by_name[name]
        output = response.outputs.add(name=name, datatype=tensor.datatype, shape=array.shape)
        if request.as_bytes:
            response.raw_output_contents.append(bytes(binary.encode(tensor, array)))
            continue
        is_text = tensor.datatype == "BYTES"
        values = binary.bytes_of(array) if is_text else array.ravel().tolist()
        getattr(output.contents, CONTENTS[tensor.datatype]).extend(values)
    return response


def _typed(tensor: Tensor, item: messages.ModelInferRequest.InferInputTensor, field: str) -> Array:
    if tensor.datatype not in CONTENTS:
        raise RequestError(
            400, f"{field}: {tensor.datatype} has no typed contents; send raw_input_contents"
        )
    expected = CONTENTS[tensor.datatype]
    if others := [found.name for found, _ in item.contents.ListFields() if found.name != expected]:
        raise RequestError(
            400, f"{field}: {tensor.datatype} has its values in {expected}, not in {others[0]}"
        )
    values = list(getattr(item.contents, expected))
    if tensor.datatype == "BYTES":
        try:
            values = [value.decode() for value in values]
        except UnicodeDecodeError as error:
            raise RequestError(400, f"{field}: an element is not UTF-8") from error
    array = decode(tensor, list(item.shape), values, field)
    check_finite(tensor, array, field)
    return array


def _check_parameters(parameters: Mapping[str, messages.InferParameter], where: str) -> None:
    choices = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    check_parameters(
        {name: choice and getattr(parameters[name], choice) for name, choice in choices.items()},
        where,
    )
