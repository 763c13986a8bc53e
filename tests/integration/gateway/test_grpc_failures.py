"""What goes wrong behind the gateway's gRPC, and what of it a caller sees: little."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tracklayer.errors import ServiceError
from tracklayer.gateway import Route
from tracklayer.gateway.usage import used
from tracklayer.serving.protocol import open_inference_pb2 as messages
from tracklayer.sockets import grpc_beside

METHOD = "/inference.GRPCInferenceService/ModelInfer"
BUSY = (("grpc-retry-pushback-ms", "1000"),)

Ask = Callable[..., tuple[str, str, str]]


@contextmanager
def asking(address: str) -> Iterator[Ask]:
    """A function that calls: the code, the version that answered, and what was said or added."""
    with grpc.insecure_channel(address) as channel:
        method = channel.unary_unary(METHOD)

        def ask(
            version: str = "", value: float = 1.0, timeout: float = 20.0
        ) -> tuple[str, str, str]:
            request = messages.ModelInferRequest(model_name="digits", model_version=version)
            request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
            request.inputs[0].contents.fp32_contents.append(value)
            try:
                found, call = method.with_call(request.SerializeToString(), timeout=timeout)
            except grpc.RpcError as error:
                after = dict(error.trailing_metadata() or ())
                return error.code().name, after.get("x-tracklayer-version", ""), error.details()
            answer = messages.ModelInferResponse.FromString(found)
            said = str(answer.outputs[0].contents.fp32_contents[0]) if answer.outputs else ""
            return "OK", dict(call.trailing_metadata())["x-tracklayer-version"], said

        yield ask


def route(peers: dict[int, Any], weights: dict[int, int], **more: Any) -> Route:
    return Route(versions={v: [peer.path] for v, peer in peers.items()}, weights=weights, **more)


@pytest.mark.parametrize("code", ["INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED"])
def test_what_a_version_on_trial_fails_on_is_answered_by_the_main_one(
    gateway: Any, peer: Any, code: str
) -> None:
    gate, main, trial = gateway("--grpc-port", 0), peer(), peer()
    gate.client.route("digits", route({1: main, 2: trial}, {1: 3, 2: 1}))
    trial.code = grpc.StatusCode[code]
    with asking(gate.grpc) as ask:
        assert {ask()[:2] for _ in range(40)} == {("OK", "1")}
        assert (trial.asked, main.asked) == (10, 40)
        counted = gate.client.stats("digits")
        assert (counted[2].requests, counted[2].errors) == (10, 10)
        assert (counted[1].requests, counted[1].errors) == (40, 0)
        # Who names it gets its own answer; and what the caller did wrong is no failure.
        assert ask("2")[:2] == (code, "2")
        trial.code = grpc.StatusCode.INVALID_ARGUMENT
        assert [ask()[:2] for _ in range(4)].count(("INVALID_ARGUMENT", "2")) == 1
        assert gate.client.stats("digits")[2].client_errors == 1


def test_the_main_versions_failures_are_the_callers(gateway: Any, peer: Any) -> None:
    gate, main, trial = gateway("--grpc-port", 0), peer(), peer()
    gate.client.route("digits", route({1: main, 2: trial}, {1: 3, 2: 1}))
    main.code = grpc.StatusCode.INTERNAL
    with asking(gate.grpc) as ask:
        found = [ask() for _ in range(8)]
    assert found.count(("INTERNAL", "1", "as its owner wishes")) == 6
    assert found.count(("OK", "2", "")) == 2
    assert (main.asked, trial.asked) == (6, 2)


def test_a_replica_that_is_busy_or_dead_costs_no_call(gateway: Any, peer: Any) -> None:
    gate, replicas = gateway("--grpc-port", 0), [peer(), peer()]
    paths = [replica.path for replica in replicas]
    gate.client.switch("digits", 1, paths)
    with asking(gate.grpc) as ask:
        replicas[0].code, replicas[0].trailers = grpc.StatusCode.UNAVAILABLE, BUSY
        assert {ask()[:2] for _ in range(20)} == {("OK", "1")}
        assert (replicas[0].asked, replicas[1].asked) == (1, 20)
        # Both: the caller is told, and when to ask again.
        replicas[1].code, replicas[1].trailers = grpc.StatusCode.UNAVAILABLE, BUSY
        assert ask()[0] == "UNAVAILABLE"
        assert (replicas[0].asked, replicas[1].asked) == (2, 21)
        for replica in replicas:
            replica.code = grpc.StatusCode.OK
        replicas[0].stop()
        assert {ask()[:2] for _ in range(20)} == {("OK", "1")}
        replicas[1].stop()
        assert ask() == ("UNAVAILABLE", "1", "no server of this project answers now")
    counted = gate.client.stats("digits")[1]
    assert (counted.requests, counted.errors) == (42, 2)


def test_a_version_whose_servers_are_gone_gives_its_share_to_the_others(
    gateway: Any, peer: Any
) -> None:
    gate, main, trial = gateway("--grpc-port", 0), peer(), peer()
    gate.client.route("digits", route({1: main, 2: trial}, {1: 1, 2: 1}))
    trial.stop()
    with asking(gate.grpc) as ask:
        assert {ask()[:2] for _ in range(20)} == {("OK", "1")}
        assert ask("2")[0] == "UNAVAILABLE"
    assert gate.client.stats("digits")[2].errors == 11


def test_killed_servers_of_real_models_cost_no_call_and_come_back(
    gateway: Any, serve: Any, spawn: Any
) -> None:
    gate, servers = gateway("--grpc-port", 0), [serve(1, grpc=True), serve(1, grpc=True)]
    gate.client.switch("digits", 1, [server.socket for server in servers])
    with asking(gate.grpc) as ask:
        assert {ask() for _ in range(10)} == {("OK", "1", "2.0")}
        servers[0].process.kill()
        servers[0].process.wait()
        assert {ask() for _ in range(50)} == {("OK", "1", "2.0")}
        # As the supervisor starts it again: the same command.
        again = spawn(*servers[0].process.args[2:])
        assert again.stdout.readline()
        assert again.stdout.readline()
        servers[1].process.terminate()
        deadline = time.monotonic() + 15
        while servers[1].process.poll() is None:
            assert ask() == ("OK", "1", "2.0")
            assert time.monotonic() < deadline
        assert {ask() for _ in range(20)} == {("OK", "1", "2.0")}


def test_a_call_in_the_hands_of_a_server_that_dies_is_not_sent_twice(
    gateway: Any, peer: Any
) -> None:
    gate, replicas = gateway("--grpc-port", 0), [peer(), peer()]
    gate.client.switch("digits", 1, [replica.path for replica in replicas])
    replicas[0].seconds = replicas[1].seconds = 1.0
    with asking(gate.grpc) as ask, ThreadPoolExecutor() as pool:
        slow = pool.submit(ask)
        deadline = time.monotonic() + 5
        while not any(replica.asked for replica in replicas):
            assert time.monotonic() < deadline
        (hit,) = [replica for replica in replicas if replica.asked]
        hit.stop()
        code, version, said = slow.result()
    assert (code, version) == ("UNAVAILABLE", "1")
    assert said == "the server of this project ended before it answered"
    assert sum(replica.asked for replica in replicas) == 1
    assert gate.client.stats("digits")[1].codes == {"broken": 1}


def test_no_call_fails_while_versions_change_and_old_servers_end(gateway: Any, serve: Any) -> None:
    gate, current = gateway("--grpc-port", 0), serve(1, grpc=True)
    gate.client.switch("digits", 1, [current.socket])
    numbers, stop = itertools.count(), threading.Event()
    wrong: list[Any] = []
    seen: list[str] = []

    def use() -> None:
        with asking(gate.grpc) as ask:
            while not stop.is_set():
                value = float(next(numbers) % 1000)
                found = ask("", value)
                if found != ("OK", found[1], str(value + int(found[1] or 0))):
                    wrong.append(found)
                seen.append(found[1])

    users = [threading.Thread(target=use) for _ in range(3)]
    for user in users:
        user.start()
    try:
        for version in range(2, 5):
            new = serve(version, grpc=True)
            assert gate.client.switch("digits", version, [new.socket]).drained
            # Killed at once: nothing may be in its hands any more.
            current.process.send_signal(signal.SIGKILL if version % 2 else signal.SIGTERM)
            current.process.wait(10)
            current = new
            time.sleep(0.3)
    finally:
        stop.set()
        for user in users:
            user.join()
    assert wrong == []
    assert sorted(set(seen)) == ["1", "2", "3", "4"]
    assert len(seen) > 100


def test_a_switch_waits_for_calls_and_closes_the_connections(gateway: Any, peer: Any) -> None:
    gate, old, new = gateway("--grpc-port", 0), peer(), peer()
    gate.client.switch("digits", 1, [old.path])
    old.seconds = 1.0
    with asking(gate.grpc) as ask, ThreadPoolExecutor() as pool:
        begin = time.monotonic()
        slow = pool.submit(ask)
        while not old.asked:
            time.sleep(0.01)
        early = gate.client.switch("digits", 2, [new.path], drain=0.1)
        assert (early.drained, early.in_flight) == (False, 1)
        assert ask()[:2] == ("OK", "2")
        assert gate.client.switch("digits", 2, [new.path]).drained
        assert time.monotonic() - begin > 1.0
        assert slow.result()[:2] == ("OK", "1")
    inode = f" {grpc_beside(old.path)}"
    deadline = time.monotonic() + 5
    # The listener itself stays; a connection to it is another line.
    while Path("/proc/net/unix").read_text().count(inode) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert Path("/proc/net/unix").read_text().count(inode) == 1


def test_who_gives_up_is_waited_for_by_nobody(gateway: Any, peer: Any) -> None:
    gate, one, two = gateway("--grpc-port", 0), peer(), peer()
    gate.client.switch("digits", 1, [one.path])
    one.seconds = 1.5
    with asking(gate.grpc) as ask:
        begin = time.monotonic()
        assert ask("", 1.0, 0.3)[0] == "DEADLINE_EXCEEDED"
        assert gate.client.switch("digits", 2, [two.path], drain=5).drained
        assert time.monotonic() - begin < 1.2
        assert ask()[:2] == ("OK", "2")
    counted = gate.client.stats("digits")[1]
    assert counted.requests == 1
    assert set(counted.codes) <= {"4xx", "5xx"}  # who noticed first: the caller, or its server
    gate.process.terminate()
    assert gate.process.communicate(timeout=10)[1] == ""


def test_a_server_that_says_nothing_is_not_waited_for(gateway: Any, peer: Any) -> None:
    gate, main, trial = gateway("--grpc-port", 0, "--timeout", 0.5), peer(), peer()
    gate.client.route("digits", route({1: main, 2: trial}, {1: 1, 2: 1}))
    main.seconds = trial.seconds = 2.0
    with asking(gate.grpc) as ask:
        found = {ask() for _ in range(2)}
    late = "the server of this project took too long"
    assert found == {("DEADLINE_EXCEEDED", version, late) for version in "12"}
    assert (main.asked, trial.asked) == (1, 1)


def test_calls_beyond_what_a_server_takes_go_to_another(gateway: Any, serve: Any) -> None:
    gate = gateway("--grpc-port", 0)
    servers = [serve(1, "--concurrency", 1, grpc=True) for _ in range(2)]
    gate.client.switch("digits", 1, [server.socket for server in servers])
    with asking(gate.grpc) as ask, ThreadPoolExecutor(60) as pool:
        found = [pool.submit(ask) for _ in range(600)]
        answers = {each.result() for each in found}
    assert answers <= {
        ("OK", "1", "2.0"),
        ("UNAVAILABLE", "1", "too many requests at once"),
    }
    assert ("OK", "1", "2.0") in answers


def test_a_gateway_that_was_killed_is_back_on_its_port(gateway: Any, serve: Any) -> None:
    gate, server = gateway("--grpc-port", 0), serve(1, grpc=True)
    gate.client.switch("digits", 1, [server.socket])
    with asking(gate.grpc) as ask, asking(gate.grpc) as other:
        assert ask() == other() == ("OK", "1", "2.0")
        gate.process.kill()
        gate.process.wait()
        again = gateway("--grpc-port", gate.grpc.rpartition(":")[2])
        assert again.grpc == gate.grpc
        deadline = time.monotonic() + 10
        while ask() != ("OK", "1", "2.0"):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_server_without_grpc_is_told_as_such(gateway: Any, serve: Any) -> None:
    gate, without = gateway("--grpc-port", 0), serve(1)
    gate.client.switch("digits", 1, [without.socket])
    with asking(gate.grpc) as ask:
        code, version, said = ask()
        assert (code, version) == ("UNAVAILABLE", "1")
        assert said.startswith("the servers of digits version 1 answer HTTP only")
        # One of another version has it, and takes the calls.
        versions = {1: [without.socket], 2: [serve(2, grpc=True).socket]}
        route = Route(versions=versions, weights={1: 1, 2: 1}, aliases={"champion": 1})
        gate.client.route("digits", route)
        assert {ask() for _ in range(4)} == {("OK", "2", "3.0")}


def test_at_a_stop_what_was_taken_is_answered(gateway: Any, peer: Any, tmp_path: Path) -> None:
    gate, one = gateway("--grpc-port", 0), peer()
    gate.client.switch("digits", 1, [one.path])
    one.seconds = 1.0
    with asking(gate.grpc) as ask, ThreadPoolExecutor() as pool:
        slow = pool.submit(ask)
        while not one.asked:
            time.sleep(0.01)
        gate.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert ask()[0] == "UNAVAILABLE"
        assert slow.result()[:2] == ("OK", "1")
    assert gate.process.wait(10) == 0
    assert gate.process.communicate()[1] == ""
    assert [(row.requests, row.errors) for row in used(tmp_path / "state" / "usage.db")] == [(1, 0)]
    with pytest.raises(ServiceError, match="is not there"):
        gate.client.routes()
