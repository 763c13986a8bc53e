"""New versions take over under load without one failed request."""

from __future__ import annotations

import itertools
import signal
import time
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from tests.integration.gateway.conftest import Users

PATH = "/digits/v2/models/digits/infer"


def test_no_request_fails_while_versions_change_and_old_servers_end(
    gateway: Any, serve: Any, users: type[Users]
) -> None:
    gate, current = gateway(), serve(1)
    gate.client.switch("digits", 1, [current.socket])
    numbers = itertools.count()

    def ask(client: httpx.Client) -> int:
        value = float(next(numbers) % 1000)
        data = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [value]}
        answer = client.post(f"{gate.url}{PATH}", json={"inputs": [data]})
        if answer.status_code != 200:
            raise ValueError(f"{answer.status_code} {answer.text}")
        body, version = answer.json(), int(answer.headers["x-tracklayer-version"])
        expected = (str(version), [value + version])
        if (body["model_version"], body["outputs"][0]["data"]) != expected:
            raise ValueError(f"{version}: {body}")
        return version

    with users(ask) as asking:
        for version in range(2, 6):
            new = serve(version)
            switched = gate.client.switch("digits", version, [new.socket])
            assert switched.drained
            # Killed at once: nothing may be in its hands any more.
            current.process.send_signal(signal.SIGKILL if version % 2 else signal.SIGTERM)
            current.process.wait(10)
            current = new
            time.sleep(0.2)
    assert asking.failures == []
    assert sorted(asking.count()) == [1, 2, 3, 4, 5]
    assert len(asking.answers) > 200
