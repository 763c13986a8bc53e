"""New versions take over under load without one failed request."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import httpx

PATH = "/digits/v2/models/digits/infer"


class Load:
    """Clients that ask without a pause and note what was wrong."""

    def __init__(self, url: str, clients: int) -> None:
        self.url = url
        self.failures: list[str] = []
        self.answered: dict[int, int] = {}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        number = 0
        with httpx.Client(timeout=20) as client:
            while not self._stop.is_set():
                number += 1
                value = float(number % 1000)
                data = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [value]}
                try:
                    answer = client.post(f"{self.url}{PATH}", json={"inputs": [data]})
                except httpx.HTTPError as error:
                    self._note(repr(error))
                    continue
                if answer.status_code != 200:
                    self._note(f"{answer.status_code} {answer.text}")
                    continue
                body = answer.json()
                version = int(answer.headers["x-tracklayer-version"])
                expected = (str(version), [value + version])
                if (body["model_version"], body["outputs"][0]["data"]) != expected:
                    self._note(f"{version}: {body}")
                with self._lock:
                    self.answered[version] = self.answered.get(version, 0) + 1

    def _note(self, failure: str) -> None:
        with self._lock:
            self.failures.append(failure)


def test_no_request_fails_while_versions_change_and_old_servers_end(
    gateway: Any, serve: Any
) -> None:
    gate, current = gateway(), serve(1)
    gate.client.switch("digits", 1, [current.socket])
    with Load(gate.url, clients=2) as load:
        for version in range(2, 6):
            new = serve(version)
            switched = gate.client.switch("digits", version, [new.socket])
            assert switched.drained
            # Killed at once: nothing may be in its hands any more.
            current.process.send_signal(signal.SIGKILL if version % 2 else signal.SIGTERM)
            current.process.wait(10)
            current = new
            time.sleep(0.2)
    assert load.failures == []
    assert sorted(load.answered) == [1, 2, 3, 4, 5]
    assert sum(load.answered.values()) > 200
