"""A server alone, whose callers need a key."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from tracklayer.access import Keys
from tracklayer.serving import golden
from tracklayer.serving.protocol import open_inference_pb2 as messages

Start = Callable[..., subprocess.Popen[str]]

SERVICE = "/inference.GRPCInferenceService/"


def test_over_http_and_grpc(model: Path, start: Start, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    _, alice = keys.create("alice", projects=["m"])
    _, bob = keys.create("bob", projects=["other"])
    process = start(model, "--port", 0, "--grpc", "127.0.0.1:0", "--keys", keys.file)
    assert process.stdout is not None
    url, address = (process.stdout.readline().split()[-1] for _ in range(2))
    made = golden(model)

    def asked(key: str | None) -> httpx.Response:
        headers = {"X-API-Key": key} if key else {}
        return httpx.post(f"{url}/v2/models/m/infer", json=made.request, headers=headers)

    answer = asked(alice)
    made.check(answer.json())
    assert [asked(key).status_code for key in (None, bob)] == [401, 403]

    with grpc.insecure_channel(address) as channel:

        def call(method: str, request: Any, *metadata: tuple[str, str]) -> Any:
            reply = channel.unary_unary(SERVICE + method)(
                request.SerializeToString(), metadata=metadata
            )
            return getattr(messages, f"{method}Response").FromString(reply)

        def refused(method: str, request: Any, *metadata: tuple[str, str]) -> str:
            with pytest.raises(grpc.RpcError) as caught:
                call(method, request, *metadata)
            assert "'m'" not in caught.value.details()
            return str(caught.value.code().name)

        times = messages.ModelInferRequest.InferInputTensor(
            name="times",
            datatype="INT64",
            shape=[1],
            contents=messages.InferTensorContents(int64_contents=[1]),
        )
        requests = {
            "ServerMetadata": messages.ServerMetadataRequest(),
            "ModelReady": messages.ModelReadyRequest(name="m"),
            "ModelMetadata": messages.ModelMetadataRequest(name="m"),
            "ModelInfer": messages.ModelInferRequest(model_name="m", inputs=[times]),
        }
        key = ("authorization", f"Bearer {alice}")
        for method, request in requests.items():
            assert refused(method, request) == "UNAUTHENTICATED"
            assert refused(method, request, ("x-api-key", alice + "A")) == "UNAUTHENTICATED"
            assert refused(method, request, ("x-api-key", bob)) == "PERMISSION_DENIED"
            call(method, request, key, ("x-tracklayer-caller", "boss"))
        unknown = messages.ModelMetadataRequest(name="no")
        assert refused("ModelMetadata", unknown) == "UNAUTHENTICATED"
        assert call("ServerLive", messages.ServerLiveRequest()).live
        assert call("ServerReady", messages.ServerReadyRequest()).ready
        keys.revoke("alice")
        assert refused("ModelInfer", requests["ModelInfer"], key) == "UNAUTHENTICATED"

    _, carol = keys.create("carol")
    page = httpx.get(f"{url}/metrics", headers={"X-API-Key": carol}).text
    assert 'code="200",caller="alice"' in page
    assert 'route="",code="401",caller=""' in page
    assert 'route="",code="403",caller=""' in page
    assert "boss" not in page
    process.terminate()
    _, log = process.communicate(timeout=10)
    assert not any(key in log + page for key in (alice, bob, carol))


@pytest.mark.parametrize("text", [None, "{", json.dumps({"keys": [{"name": "a"}]})])
def test_without_a_good_file_it_does_not_start(
    text: str | None, model: Path, start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    if text is not None:
        file.write_text(text)
    process = start(model, "--port", 0, "--keys", file)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 13
    assert out == ""
    assert err.startswith("error: ")
    assert str(file) in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--port", "99999"), "must be from 0 to 65535"),
        (("--port", "-1"), "must be from 0 to 65535"),
        (("--port", "0", "--grpc", "127.0.0.1:99999"), "gRPC cannot listen on 127.0.0.1:99999"),
        (("--port", "0", "--grpc", "127.0.0.1"), "gRPC cannot listen on 127.0.0.1"),
    ],
)
def test_addresses_that_cannot_be(
    arguments: tuple[str, ...], said: str, model: Path, start: Start
) -> None:
    process = start(model, *arguments)
    _, err = process.communicate(timeout=30)
    assert process.returncode in (2, 13)
    assert said in err
    assert "Traceback" not in err
