"""What the gateway reads of a message of the Open Inference Protocol: which model it is for."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from tracklayer.serving.protocol import open_inference_pb2 as messages


def model_of(data: bytes) -> tuple[str, str]:
    """Name and version of the model, "" where there is none.

    They are the fields 1 and 2 of every message that names a model: it is read as the one that has
    no others, so that nothing else of it is looked into.

    :raises ValueError: these are not the bytes of a message.
    """
    try:
        found = messages.ModelReadyRequest.FromString(data)
    except DecodeError as error:
        raise ValueError("the message is not one of the Open Inference Protocol") from error
    return found.name, found.version


def readdressed(data: bytes, name: str, version: str) -> bytes:
    """The same message for another model: of a field that is there twice the last one counts.

    :param name: not empty, as ``version``: what is empty is no part of a message.
    """
    last: bytes = messages.ModelReadyRequest(name=name, version=version).SerializeToString()
    return data + last
