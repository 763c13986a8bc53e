"""A home with a supervisor, a gateway and a store, in which versions take over from each other."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import onnx
import pytest

from tracklayer.gateway.endpoint import Author
from tracklayer.gateway.releases import Release
from tracklayer.gateway.rollout import Rollout
from tracklayer.platform import endpoint, supervisor
from tracklayer.runtimes.orphans import end_marked
from tracklayer.runtimes.supervisor import MARK
from tracklayer.serving import Golden
from tracklayer.settings import settings
from tracklayer.spec import Deploy
from tracklayer.store import open_store

if TYPE_CHECKING:
    from tests.integration.gateway.conftest import Adding, Users

ANN = Author("ann", run="manual__1", commit="c" * 40)
DEPLOYER = """
import json, os, signal, sys
from tracklayer.gateway.endpoint import Author
from tracklayer.gateway.releases import Release
from tracklayer.platform import rollout
from tracklayer.spec import Deploy

project, release, plan, limit = sys.argv[1:]
seen, limit = 0, int(limit)

def watch(event, arguments):
    global seen
    if event not in ("socket.connect", "os.rename", "os.remove", "fcntl.flock"):
        return
    seen += 1
    if seen == limit:
        os.kill(os.getpid(), signal.SIGKILL)

say = lambda line: print(line, flush=True)
deployer = rollout(project)
sys.addaudithook(watch)
try:
    deployer.deploy(
        Release.model_validate_json(release), Deploy.model_validate_json(plan), Author("bob"), say
    )
finally:
    say(f"effects {seen}")
"""


def ask(client: httpx.Client, url: str) -> int:
    """The version that answers, by what it answers: the input and 1000 times its version."""
    tensor = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [7]}
    answer = client.post(url, json={"inputs": [tensor]})
    if answer.status_code != 200:
        raise ValueError(f"{answer.status_code} {answer.text}")
    return int(answer.json()["outputs"][0]["data"][0] - 7) // 1000


class Stage:
    """A home with a supervisor, a gateway and a store; projects and their versions."""

    def __init__(
        self, folder: Path, port: int, proxy: str, adding: Adding, users: type[Users]
    ) -> None:
        self.folder = folder
        self._adding, self._users = adding, users
        self.log: list[str] = []
        self.url = f"http://127.0.0.1:{port}"
        self._port, self._proxy = port, proxy
        self._gateway: subprocess.Popen[str] | None = None

    def start(self) -> None:
        here = settings()
        self._gateway = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "tracklayer.gateway", "--port", str(self._port)),
                *("--admin", str(here.sockets / "gateway.sock")),
                *("--routes", str(here.home / "routes.json")),
                *("--state", str(here.home / "gateway"), "--proxy", self._proxy),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._gateway.stdout
        assert self._gateway.stdout.readline().startswith("gateway listening")

    def stop(self) -> None:
        if self._gateway:
            self._gateway.kill()
            self._gateway.communicate()

    def restart(self) -> None:
        """As after a crash: killed, away for a moment, started again."""
        self.stop()
        time.sleep(0.5)
        self.start()

    def release(
        self, version: int, *, says: int | None = None, work: int = 0, size: int = 1
    ) -> Release:
        """A version whose model adds 1000 times its number; or what ``says`` says, wrongly.

        :param work: how many products of large matrices it makes for each answer.
        """
        said = version if says is None else says
        return Release(
            version=version,
            manifest=self._model(1000 * said, work),
            replicas=size,
            golden=Golden(
                {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]}]},
                {
                    "outputs": [
                        {
                            "name": "y",
                            "shape": [1, 1],
                            "datatype": "FP32",
                            "data": [1 + 1000 * version],
                        }
                    ]
                },
            ),
        )

    def broken(self, version: int) -> Release:
        """A version whose model cannot be loaded."""
        folder = self.folder / f"broken{version}"
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"\x08\x09garbage")
        manifest = open_store().put_tree(folder, origin={}).digest
        return self.release(version).model_copy(update={"manifest": manifest})

    def _model(self, added: int, work: int) -> str:
        folder = self.folder / f"model{added}-{work}"
        folder.mkdir(exist_ok=True)
        onnx.save(self._adding(added, work), folder / "model.onnx")
        return str(open_store().put_tree(folder, origin={}).digest)

    def deploy(self, project: str, release: Release, plan: Deploy, author: Author = ANN) -> Any:
        return Rollout(endpoint(project)).deploy(release, plan, author, self.log.append)

    @contextmanager
    def deploying(
        self, project: str, release: Release, plan: Deploy, limit: int = 0
    ) -> Iterator[subprocess.Popen[str]]:
        """A deployer in a process of its own; ``limit``: the effect at which it kills itself."""
        argv = [project, release.model_dump_json(), plan.model_dump_json(), str(limit)]
        with subprocess.Popen(
            [sys.executable, "-P", "-c", DEPLOYER, *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def command(self, *arguments: str) -> tuple[int, str, float]:
        """``tracklayer ...``: its exit code, its output, and how long it took."""
        code = "from tracklayer.cli.main import run; run()"
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr, time.monotonic() - begun

    def users(self, project: str, **options: Any) -> Users:
        """They ask for a version by what it answers."""
        url = f"{self.url}/{project}/v2/models/{project}/infer"
        return self._users(
            lambda client: ask(client, url), **{"clients": 3, "pause": 0.002} | options
        )

    def asks(self, project: str, *, path: str | None = None) -> int:
        with httpx.Client(trust_env=False) as client:
            return ask(client, f"{self.url}/{path or project}/v2/models/{project}/infer")

    def events(self, project: str) -> list[tuple[str, int, dict[int, int]]]:
        read = endpoint(project).ledger.read()
        assert read.problems == []
        return [(e.event, e.version, e.weights) for e in read.of(project)]

    def until(self, done: Callable[[], Any], seconds: float = 20) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := done()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return found


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory,
    free_ports: Callable[[int], list[int]],
    proxy: str,
    adding: Adding,
    users: type[Users],
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKLAYER_HOME", str(folder / "home"))
        settings.cache_clear()
        keeper = supervisor()
        found = Stage(folder, *free_ports(1), proxy, adding, users)
        try:
            keeper.start()
            found.start()
            yield found
        finally:
            found.stop()
            end_marked(MARK, str(settings().sockets / "supervisor.sock"), grace=1)
    settings.cache_clear()
