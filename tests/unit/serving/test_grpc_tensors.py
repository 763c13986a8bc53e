from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from tracklayer.serving.formats import load
from tracklayer.serving.grpc_tensors import answer, read
from tracklayer.serving.http import Service
from tracklayer.serving.model import DATATYPES, RequestError, Signature, Tensor
from tracklayer.serving.protocol import open_inference_pb2 as messages

Identity = Callable[[int], Path]
Input = messages.ModelInferRequest.InferInputTensor
Output = messages.ModelInferRequest.InferRequestedOutputTensor
Contents = messages.InferTensorContents
Parameter = messages.InferParameter

RAW = struct.pack("<4f", 0, 0.5, 1, 2)


class Echo:
    """Takes one tensor of a type, and gives it back."""

    def __init__(self, datatype: str) -> None:
        self.signature = Signature(
            (Tensor("v", datatype, ("n",)),), (Tensor("w", datatype, ("n",)),)
        )


def x(**changes: Any) -> Any:
    return Input(**{"name": "x", "datatype": "FP32", "shape": [1, 4]} | changes)


def test_the_generated_messages_are_those_of_the_source() -> None:
    source = Path(messages.__file__).with_name("open_inference.proto").read_text()
    kinds = r"(?:repeated |map<string, )?[\w.]+>? (\w+) = (\d+);"
    written = sorted((name, int(number)) for name, number in re.findall(kinds, source))
    generated: list[tuple[str, int]] = []
    pending = list(messages.DESCRIPTOR.message_types_by_name.values())
    while pending:
        message = pending.pop()
        inner = [nested for nested in message.nested_types if not nested.GetOptions().map_entry]
        pending += inner
        generated += [(field.name, field.number) for field in message.fields]
    assert sorted(generated) == written
    [service] = messages.DESCRIPTOR.services_by_name.values()
    assert re.findall(r"rpc (\w+)", source) == [method.name for method in service.methods]


def infer(folder: Path, **fields: Any) -> Any:
    service = Service("m", "3", load(folder))
    request = read(service.model, messages.ModelInferRequest(**fields))
    results = service.model.run(request.feeds, request.outputs, service.model.call())
    return answer(service, "i", request, results)


def test_the_answer_comes_as_the_question_came(linear: Path) -> None:
    raw = infer(linear, inputs=[x()], raw_input_contents=[RAW])
    typed = infer(linear, inputs=[x(contents=Contents(fp32_contents=[0, 0.5, 1, 2]))])
    assert (raw.model_name, raw.model_version, raw.id) == ("m", "3", "i")
    for response in (raw, typed):
        [output] = response.outputs
        assert (output.name, output.datatype, output.shape) == ("y", "FP32", [1, 3])
    assert not raw.outputs[0].HasField("contents")
    assert not typed.raw_output_contents
    values = list(typed.outputs[0].contents.fp32_contents)
    assert struct.unpack("<3f", raw.raw_output_contents[0]) == tuple(values)
    assert sum(values) == pytest.approx(1)


def test_outputs_are_chosen_and_ordered_by_the_client(addition: Path) -> None:
    inputs = [
        Input(name=name, datatype="FP64", shape=[1, 2], contents=Contents(fp64_contents=[2, 3]))
        for name in "ab"
    ]
    response = infer(addition, inputs=inputs, outputs=[Output(name="product")])
    assert [output.name for output in response.outputs] == ["product"]
    assert list(response.outputs[0].contents.fp64_contents) == [4, 9]


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"FP16"}))
def test_every_type_has_its_typed_contents(datatype: str) -> None:
    dtype = DATATYPES[datatype]
    values: list[Any] = ["é", ""] if dtype.kind == "O" else np.array([0, 1]).astype(dtype).tolist()
    field = {"BYTES": "bytes_contents", "BOOL": "bool_contents"}.get(
        datatype,
        {
            ("i", True): "int_contents",
            ("u", True): "uint_contents",
            ("i", False): "int64_contents",
            ("u", False): "uint64_contents",
        }.get((dtype.kind, dtype.itemsize < 8), f"{datatype.lower()}_contents"),
    )
    sent = [value.encode() for value in values] if dtype.kind == "O" else values
    item = Input(name="v", datatype=datatype, shape=[2], contents=Contents(**{field: sent}))
    model: Any = Echo(datatype)
    request = read(model, messages.ModelInferRequest(inputs=[item]))
    assert request.feeds["v"].dtype == dtype
    response = answer(Service("m", "3", model), "", request, [request.feeds["v"]])
    assert list(getattr(response.outputs[0].contents, field)) == sent


def test_halves_go_as_bytes(identity: Identity) -> None:
    halves = struct.pack("<2e", 0.5, -2)
    item = Input(name="v", datatype="FP16", shape=[2])
    response = infer(identity(TensorProto.FLOAT16), inputs=[item], raw_input_contents=[halves])
    assert list(response.raw_output_contents) == [halves]
    typed = Input(name="v", datatype="FP16", shape=[1], contents=Contents(fp32_contents=[1]))
    with pytest.raises(RequestError, match="FP16 has no typed contents; send raw_input_contents"):
        infer(identity(TensorProto.FLOAT16), inputs=[typed])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "'x' missing"),
        ({"inputs": [x()], "raw_input_contents": [RAW, RAW]}, "has 2 items for 1 inputs"),
        ({"inputs": [x(), x()], "raw_input_contents": [RAW] * 2}, "input 'x' is given twice"),
        ({"inputs": [x(name="z")], "raw_input_contents": [RAW]}, r"inputs\[0\]: no input 'z'"),
        ({"inputs": [x(datatype="FP64")], "raw_input_contents": [RAW]}, "datatype must be 'FP32'"),
        ({"inputs": [x(shape=[4])], "raw_input_contents": [RAW]}, "does not fit"),
        ({"inputs": [x(shape=[-1, 4])], "raw_input_contents": [RAW]}, "integers, zero or more"),
        ({"inputs": [x(shape=[2, 4])], "raw_input_contents": [RAW]}, "needs 32 bytes"),
        ({"inputs": [x()]}, "needs 4 values, data has 0"),
        (
            {"inputs": [x(contents=Contents(fp64_contents=[1, 2, 3, 4]))]},
            "FP32 has its values in fp32_contents, not in fp64_contents",
        ),
        (
            {
                "inputs": [x(contents=Contents(fp32_contents=[1, 2, 3, 4]))],
                "raw_input_contents": [RAW],
            },
            "either contents or raw_input_contents, not both",
        ),
        (
            {"inputs": [x(contents=Contents(fp32_contents=[1, 2, 3, float("nan")]))]},
            "'x': a value of data is NaN or infinite",
        ),
        (
            {
                "inputs": [x(parameters={"shared_memory_region": Parameter(string_param="r")})],
                "raw_input_contents": [RAW],
            },
            "shared_memory_region is not served here",
        ),
        (
            {
                "inputs": [x()],
                "raw_input_contents": [RAW],
                "parameters": {"a": Parameter()},
            },
            "the request: parameter 'a' must be a string",
        ),
        (
            {
                "inputs": [x()],
                "raw_input_contents": [RAW],
                "outputs": [Output(name="y"), Output(name="y")],
            },
            r"outputs\[1\]: output 'y' is asked for twice",
        ),
        (
            {
                "inputs": [x()],
                "raw_input_contents": [RAW],
                "outputs": [Output(name="z")],
            },
            r"outputs\[0\]: no output 'z'; outputs: y",
        ),
    ],
)
def test_what_breaks_the_protocol_is_refused_and_named(
    linear: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        infer(linear, **fields)
    assert caught.value.status == 400


def test_small_integers_have_their_range_and_text_is_utf8() -> None:
    for datatype, contents, message in (
        ("INT8", Contents(int_contents=[128]), "out of range for INT8"),
        ("UINT16", Contents(uint_contents=[65536]), "out of range for UINT16"),
        ("BYTES", Contents(bytes_contents=[b"\xff"]), "not UTF-8"),
    ):
        item = Input(name="v", datatype=datatype, shape=[1], contents=contents)
        model: Any = Echo(datatype)
        with pytest.raises(RequestError, match=message):
            read(model, messages.ModelInferRequest(inputs=[item]))
