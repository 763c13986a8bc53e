from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracklayer.gateway.grpc_messages import model_of, readdressed
from tracklayer.serving.protocol import open_inference_pb2 as messages

names = st.text(max_size=80)


def request(name: str, version: str, raw: bytes = b"", identifier: str = "") -> bytes:
    message = messages.ModelInferRequest(
        model_name=name, model_version=version, id=identifier, raw_input_contents=[raw]
    )
    message.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    message.parameters["a"].int64_param = 7
    data: bytes = message.SerializeToString()
    return data


@given(names, names, st.binary(max_size=200))
def test_the_model_of_any_message_is_found(name: str, version: str, raw: bytes) -> None:
    assert model_of(request(name, version, raw)) == (name, version)
    for kind in (messages.ModelReadyRequest, messages.ModelMetadataRequest):
        assert model_of(kind(name=name, version=version).SerializeToString()) == (name, version)


@given(st.binary(max_size=200))
def test_of_any_bytes_there_is_a_model_or_a_clean_error(data: bytes) -> None:
    refusal = "the message is not one of the Open Inference Protocol"
    try:
        found: str | tuple[str, str] = model_of(data)
    except ValueError as error:
        found = str(error)
    assert found == refusal or [*map(type, found)] == [str, str]


@given(st.data())
def test_a_message_that_was_cut_off_or_changed_is_a_clean_error(data: st.DataObject) -> None:
    whole = bytearray(request("digits", "3", b"1234", "r"))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    with suppress(ValueError):
        model_of(bytes(whole))
    with suppress(ValueError):
        model_of(bytes(whole[:at]))


@pytest.mark.parametrize(
    "wrong",
    [
        b"\x0a",  # no length
        b"\x0a\x05abc",  # shorter than it says
        b"\x0a\xff\xff\xff\xff\x0f",  # a length of 4 GiB
        b"\x0a\x01\xff",  # not UTF-8
        b"\x3b",  # a group without an end
        b"\x3b" * 10_000,  # in one another
        b"\x00\x00",  # a field of the number 0
        b"\xff" * 20,  # a number without an end
    ],
)
def test_what_is_no_message_is_refused(wrong: bytes) -> None:
    with pytest.raises(ValueError, match="not one of the Open Inference Protocol"):
        model_of(wrong)


def test_a_field_of_the_number_but_not_the_type_is_no_name() -> None:
    assert model_of(b"\x08\x05") == ("", "")


@given(names, names, st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=10))
def test_another_address_leaves_the_rest_as_it_was(
    name: str, version: str, other: str, number: str
) -> None:
    changed = readdressed(request(name, version, b"1234", "r1"), other, number)
    assert model_of(changed) == (other, number)
    expected = messages.ModelInferRequest.FromString(request(other, number, b"1234", "r1"))
    assert messages.ModelInferRequest.FromString(changed) == expected
