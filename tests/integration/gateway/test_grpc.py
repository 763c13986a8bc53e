"""gRPC at the gateway: every project, version and alias at one address, for those who may."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from tracklayer.access import Keys
from tracklayer.gateway import Route
from tracklayer.gateway.usage import used
from tracklayer.serving.protocol import open_inference_pb2 as messages

SERVICE = "/inference.GRPCInferenceService/"
OK = grpc.StatusCode.OK


class Client:
    """Plain stubs on one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel

    def call(
        self, method: str, message: Any, **options: Any
    ) -> tuple[grpc.StatusCode, Any, dict[str, str]]:
        """The code; the answer, or what was said instead of it; what came after it."""
        data = message if isinstance(message, bytes) else message.SerializeToString()
        kind = getattr(messages, f"{method}Response", bytes)
        try:
            found, call = self.channel.unary_unary(f"{SERVICE}{method}").with_call(
                data, timeout=20, **options
            )
        except grpc.RpcError as error:
            return error.code(), error.details(), dict(error.trailing_metadata() or ())
        return call.code(), kind.FromString(found), dict(call.trailing_metadata())

    def infer(
        self, name: str = "digits", version: str = "", value: float = 1.0, **options: Any
    ) -> tuple[grpc.StatusCode, Any, dict[str, str]]:
        request = messages.ModelInferRequest(model_name=name, model_version=version, id="r1")
        request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
        request.inputs[0].contents.fp32_contents.append(value)
        return self.call("ModelInfer", request, **options)

    def code(self, *arguments: Any, **options: Any) -> str:
        return str(self.infer(*arguments, **options)[0].name)


@contextmanager
def connected(address: str) -> Iterator[Client]:
    with grpc.insecure_channel(address) as channel:
        yield Client(channel)


def route(peers: dict[int, Any], weights: dict[int, int], **more: Any) -> Route:
    return Route(versions={v: [peer.path] for v, peer in peers.items()}, weights=weights, **more)


def bearer(key: str) -> Any:
    return {"metadata": (("authorization", f"Bearer {key}"),)}


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "state" / "keys.json")


def test_every_project_and_version_is_reached_at_one_address(gateway: Any, serve: Any) -> None:
    gate = gateway("--grpc-port", 0)
    servers = {version: serve(version, grpc=True).socket for version in (3, 12)}
    aliases = {"champion": 3, "next": 12}
    versions = {version: [socket] for version, socket in servers.items()}
    gate.client.route("digits", Route(versions=versions, weights={3: 1}, aliases=aliases))
    gate.client.switch("other", 7, [serve(7, name="other", grpc=True).socket])
    with connected(gate.grpc) as client:
        for name, version, expected in (
            ("digits", "", 3),
            ("digits", "3", 3),
            ("digits", "12", 12),
            ("digits", "next", 12),
            ("digits@12", "", 12),
            ("digits@12", "12", 12),
            ("digits@champion", "", 3),
            ("other", "", 7),
        ):
            code, answer, after = client.infer(name, version, 5.0)
            assert (code, after["x-tracklayer-version"]) == (OK, str(expected)), (name, version)
            assert (answer.model_name, answer.model_version) == (name.split("@")[0], str(expected))
            assert answer.outputs[0].contents.fp32_contents[:] == [5.0 + expected]
            assert answer.id == "r1"
            asked = messages.ModelMetadataRequest(name=name, version=version)
            code, answer, _ = client.call("ModelMetadata", asked)
            assert (code, answer.versions[:]) == (OK, [str(expected)])
            asked = messages.ModelReadyRequest(name=name, version=version)
            assert client.call("ModelReady", asked)[1].ready
        assert client.call("ServerLive", b"")[1].live
        assert client.call("ServerReady", b"")[1].ready
        assert client.call("ServerMetadata", b"")[1].name == "tracklayer"
        # What the server finds wrong comes back as it said it.
        wrong = messages.ModelInferRequest(model_name="digits", model_version="12")
        code, said, after = client.call("ModelInfer", wrong)
        assert (code.name, after["x-tracklayer-version"]) == ("INVALID_ARGUMENT", "12")
        assert said == "inputs: 'x' missing"
    # HTTP is where it was, and both count together.
    assert httpx.get(f"{gate.url}/digits/v2/health/live").status_code == 200
    counted = gate.client.stats("digits")
    assert (counted[3].requests, counted[12].requests) == (3 * 3 + 1, 4 * 3 + 1)
    assert (counted[12].errors, counted[12].client_errors) == (0, 1)


def test_shares_are_exact_with_many_channels(gateway: Any, peer: Any) -> None:
    gate = gateway("--grpc-port", 0)
    peers = {1: peer(), 2: peer(), 3: peer()}
    gate.client.route("digits", route(peers, {1: 85, 2: 10, 3: 5}))

    def ask(_: int) -> Counter[str]:
        with connected(gate.grpc) as client:
            calls = [client.infer() for _ in range(250)]
        return Counter(f"{code.name} {after['x-tracklayer-version']}" for code, _, after in calls)

    with ThreadPoolExecutor(8) as pool:
        found = sum(pool.map(ask, range(8)), Counter[str]())
    assert sum(found.values()) == 2000
    for version, share in ((1, 0.85), (2, 0.1), (3, 0.05)):
        assert abs(found[f"OK {version}"] - 2000 * share) <= 1
        assert peers[version].asked == found[f"OK {version}"]


def test_what_there_is_not_is_told_with_what_there_is(gateway: Any, peer: Any) -> None:
    gate, one = gateway("--grpc-port", 0), peer()
    with connected(gate.grpc) as client:
        code, said, _ = client.infer("digits")
        assert (code.name, said) == ("NOT_FOUND", "no project 'digits' here; there are: none")
        gate.client.route("digits", route({3: one, 12: one}, {3: 1}, aliases={"champion": 3}))
        gate.client.switch("shut", 1, [one.path])
        closed = Route.of(1, [one.path]).model_copy(update={"access": "keys"})
        gate.client.route("shut", closed)
        for name in ("z", "", "é" * 500, "digits/x", "@3", "Digits"):
            code, said, _ = client.infer(name)
            assert code.name == "NOT_FOUND"
            assert said.endswith("here; there are: digits")
            assert len(said) < 200
        for version in ("4", "nobody", "03", "٣", "9" * 30, "3@3"):
            code, said, _ = client.infer("digits", version)
            assert code.name == "NOT_FOUND", version
            assert "@3, @12, @champion" in said
        assert client.call("ModelTrain", b"")[0].name == "UNIMPLEMENTED"
        assert client.call("RepositoryIndex", b"")[0].name == "UNIMPLEMENTED"
    assert one.asked == 0


def test_no_message_brings_a_trace(gateway: Any, serve: Any) -> None:
    gate = gateway("--grpc-port", 0)
    gate.client.switch("digits", 1, [serve(1, grpc=True).socket])
    whole = messages.ModelInferRequest(model_name="digits", id="r")
    whole.inputs.add(name="x", datatype="FP32", shape=[1, 1]).contents.fp32_contents.append(1)
    data = whole.SerializeToString()
    chance = random.Random(1)
    with connected(gate.grpc) as client:
        for wrong in (b"\x0a", b"\x0a\x05abc", b"\xff" * 20, b"\x3b" * 1000):
            for method in ("ModelInfer", "ModelMetadata", "ModelReady"):
                code, said, _ = client.call(method, wrong)
                assert code.name == "INVALID_ARGUMENT"
                assert said == "the message is not one of the Open Inference Protocol"
        found = Counter[str]()
        for _ in range(300):
            changed = bytearray(data)
            for _ in range(chance.randint(1, 4)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            code, said, _ = client.call("ModelInfer", bytes(changed[: chance.randint(0, 99)]))
            found[code.name] += 1
            assert "Traceback" not in str(said)
        assert set(found) <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
        assert client.code() == "OK"
    gate.process.terminate()
    assert gate.process.communicate(timeout=10)[1] == ""


def test_a_key_opens_its_projects_and_the_server_never_gets_it(
    gateway: Any, peer: Any, keys: Keys
) -> None:
    gate, one = gateway("--grpc-port", 0, "--access", "keys"), peer()
    for project in ("digits", "other"):
        gate.client.switch(project, 1, [one.path])
    _, key = keys.create("alice", projects=["digits"])
    _, short = keys.create("bob", lifetime=timedelta(seconds=-1))
    with connected(gate.grpc) as client:
        code, said, _ = client.infer()
        assert (code.name, "authorization: bearer" in said.lower()) == ("UNAUTHENTICATED", True)
        # Who has no key learns no names.
        assert client.infer("z")[1] == client.infer()[1]
        said = client.infer("z", **bearer(key))[1]
        assert said == "no project 'z' here; there are: digits"
        spoofed = ("x-tracklayer-caller", "root")
        for pair in (("authorization", f"bearer {key}"), ("x-api-key", key)):
            assert client.code(metadata=(pair, spoofed, ("traceparent", "00-1"))) == "OK"
        assert client.code("other", **bearer(key)) == "PERMISSION_DENIED"
        for wrong in (key[:-1], f"{key}A", "tlk_", short):
            assert client.code(**bearer(wrong)) == "UNAUTHENTICATED"
        assert "expired" in client.infer(**bearer(short))[1]
        keys.revoke("alice")
        assert client.code(**bearer(key)) == "UNAUTHENTICATED"
        # Health says nothing about projects.
        assert client.call("ServerReady", b"")[1].ready
    assert one.asked == 2
    for told in one.told:
        assert told["x-tracklayer-caller"] == "alice"
        assert told["traceparent"] == "00-1"
        assert not told.keys() & {"authorization", "x-api-key"}
        assert key not in str(told)


def test_where_no_key_is_needed_others_tokens_are_the_servers_business(
    gateway: Any, peer: Any, keys: Keys
) -> None:
    gate, one = gateway("--grpc-port", 0), peer()
    gate.client.switch("digits", 1, [one.path])
    _, key = keys.create("alice")
    with connected(gate.grpc) as client:
        assert client.code(metadata=(("x-tracklayer-caller", "root"),)) == "OK"
        assert client.code(**bearer("theirs")) == "OK"
        assert client.code(**bearer(key)) == "OK"
        assert client.code(**bearer("tlk_wrong")) == "UNAUTHENTICATED"
    told = [(each.get("authorization"), each.get("x-tracklayer-caller")) for each in one.told]
    assert told == [(None, None), ("Bearer theirs", None), (None, "alice")]


def test_a_rate_is_held_over_both_protocols(
    gateway: Any, serve: Any, keys: Keys, proxy: str
) -> None:
    gate = gateway("--grpc-port", 0, "--access", "keys")
    gate.client.switch("digits", 1, [serve(1, grpc=True).socket])
    _, key = keys.create("alice", rate=0.5, burst=4)
    with connected(gate.grpc) as client:
        url = f"{gate.url}/digits/v2/health/live"
        assert httpx.get(url, headers={"X-API-Key": key}).status_code == 200
        found = [client.infer(**bearer(key)) for _ in range(5)]
    codes = [code.name for code, _, _ in found]
    # HAProxy counts HTTP by itself, as soon as it knows the key.
    first = 4 if proxy == "haproxy" and codes.count("OK") == 4 else 3
    assert codes == ["OK"] * first + ["RESOURCE_EXHAUSTED"] * (5 - first)
    _, said, after = found[-1]
    assert "0.5 requests a second" in said
    assert after["grpc-retry-pushback-ms"] in ("1000", "2000")


def test_what_is_billed_is_what_was_asked(
    gateway: Any, serve: Any, keys: Keys, tmp_path: Path
) -> None:
    gate = gateway("--grpc-port", 0)
    servers = {version: [serve(version, grpc=True).socket] for version in (1, 2)}
    gate.client.route("digits", Route(versions=servers, weights={1: 3, 2: 1}))
    _, key = keys.create("alice")
    size = 0
    with connected(gate.grpc) as client:
        for _ in range(20):
            size += len(client.infer(**bearer(key))[1].SerializeToString())
            size += len(client.infer()[1].SerializeToString())
        client.code("other")
        client.code(**bearer("tlk_wrong"))
    gate.process.terminate()  # at once: what was counted is not lost
    assert gate.process.wait(10) == 0
    rows = used(tmp_path / "state" / "usage.db")
    assert Counter({(row.caller, row.version): row.requests for row in rows}).total() == 40
    assert sum(row.requests for row in rows if row.caller == "alice") == 20
    assert sum(row.requests for row in rows if row.version == 2) == 10
    assert sum(row.bytes_out for row in rows) == size
    request = messages.ModelInferRequest(model_name="digits", id="r1")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 1]).contents.fp32_contents.append(1)
    assert sum(row.bytes_in for row in rows) == 40 * len(request.SerializeToString())
    assert sum(row.errors for row in rows) == 0
    assert 0 < sum(row.seconds for row in rows) < 10


def test_a_message_has_a_largest_size_and_a_time_to_come(gateway: Any, peer: Any) -> None:
    gate, one = gateway("--grpc-port", 0, "--max-body", 4096, "--timeout", 1), peer()
    gate.client.switch("digits", 1, [one.path])
    with connected(gate.grpc) as client:
        large = messages.ModelInferRequest(model_name="digits", raw_input_contents=[bytes(3000)])
        assert client.call("ModelInfer", large)[0] is OK
        large.raw_input_contents.append(bytes(3000))
        code, said, _ = client.call("ModelInfer", large)
        assert (code.name, "larger than max" in said) == ("RESOURCE_EXHAUSTED", True)
        large.raw_input_contents.append(bytes(1 << 20))
        code, said, _ = client.call("ModelInfer", large, compression=grpc.Compression.Gzip)
        assert (code.name, "larger than max" in said) == ("RESOURCE_EXHAUSTED", True)

        def never() -> Iterator[bytes]:
            time.sleep(3)
            yield b""

        begin = time.monotonic()
        with pytest.raises(grpc.RpcError) as late:
            client.channel.stream_unary(f"{SERVICE}ModelInfer")(never(), timeout=10)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert late.value.details() == "the message took longer than 1 s"
        assert time.monotonic() - begin < 2.5
        with pytest.raises(grpc.RpcError) as empty:
            client.channel.stream_unary(f"{SERVICE}ModelInfer")(iter(()), timeout=10)
        assert empty.value.details() == "the call has no message"
    assert one.asked == 1


def test_a_port_in_use_ends_the_start_with_one_message(
    gateway: Any, spawn: Any, tmp_path: Path
) -> None:
    gate = gateway("--grpc-port", 0)
    process = spawn(
        "tracklayer.gateway",
        *("--port", 0, "--admin", tmp_path / "b.sock", "--routes", tmp_path / "b.json"),
        *("--state", tmp_path / "b", "--grpc-port", gate.grpc.rpartition(":")[2]),
    )
    _, said = process.communicate(timeout=30)
    assert process.returncode == 13
    assert f"gRPC cannot listen on {gate.grpc}" in said
    assert "Traceback" not in said
    assert not (tmp_path / "b.sock").exists()


def test_grpc_is_imported_only_where_it_is_wanted(gateway: Any) -> None:
    maps = Path(f"/proc/{gateway().process.pid}/maps").read_text()
    assert "httptools" in maps
    assert "cygrpc" not in maps
