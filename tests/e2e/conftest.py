"""One real platform for all of these tests: started, used and stopped as a person would.

Everything goes through the command line, git, and the platform's ports. Only what a person would
look up on the disk (the password, the logs) is read from its home.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from tracklayer.private import roots
from tracklayer.settings import Settings
from tracklayer.tracking import ModelVersion, Tracking

if TYPE_CHECKING:
    from tests.conftest import FreePorts, Hub

Data = dict[str, Any]
T = TypeVar("T")

PATIENCE = 150.0  # seconds for one run on a busy machine

_PORTS = ("airflow", "mlflow", "gateway", "gateway_grpc")
_TRACKLAYER = Path(sys.executable).parent / "tracklayer"
_ENDED = {"success", "failed"}

# The pipelines of most tests have no machines to make: that part is the same in all of them.
_TEMPLATES = {
    "lean.v1.yaml": """\
steps:
  fetch:    {run: fetch, each: sources}
  packages: {run: packages, after: [fetch]}
  train:    {run: train, after: [packages]}
  evaluate: {run: evaluate, when: evaluate, after: [train]}
  register: {run: register, after: [evaluate]}
  deploy:   {run: deploy, after: [register]}
  verify:   {run: verify, after: [deploy]}
""",
    "serve.v1.yaml": """\
requires: [sources.model]
steps:
  fetch:    {run: fetch, each: sources}
  register: {run: register, after: [fetch]}
  deploy:   {run: deploy, after: [register]}
  verify:   {run: verify, after: [deploy]}
""",
    "tick.v1.yaml": "steps: {tick: {run: noop}}\n",
}


class Mlflow(Tracking):
    """The platform's MLflow, also as its page shows it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._http = httpx.Client(base_url=f"{url}/api/2.0", timeout=60, trust_env=False)

    def runs_of(self, project: str, run: str) -> list[Data]:
        """The MLflow runs of one run of a project."""
        found = self._http.get(
            "/mlflow/experiments/get-by-name", params={"experiment_name": project}
        )
        if found.status_code == 404:
            return []
        body = {
            "experiment_ids": [found.json()["experiment"]["experiment_id"]],
            "filter": f"tags.`tracklayer.run` = '{run}'",
        }
        answer = self._http.post("/mlflow/runs/search", json=body)
        assert answer.is_success, answer.text
        runs: list[Data] = answer.json().get("runs", [])
        return runs

    def aliased(self, project: str, alias: str = "champion") -> ModelVersion:
        """The version of a project's model that has an alias, as one must."""
        found = self.by_alias(project, alias)
        assert found is not None, f"{project} has no {alias}"
        return found

    def artifact(self, run: Data, name: str) -> Any:
        """A JSON document that a run has kept."""
        folder = run["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
        answer = self._http.get(f"/mlflow-artifacts/artifacts/{folder}/{name}")
        assert answer.is_success, answer.text
        return answer.json()


class Platform:
    """A running platform, and a person who uses it.

    :param folder: for its home, the person's clone and the templates.
    :param hub: where Hugging Face and Kaggle are.
    """

    planted = "planted-5f0c1b7e9a3d4486"
    """A secret of the person who starts the platform, in two variables."""

    def __init__(self, folder: Path, ports: list[int], hub: str) -> None:
        self.home = folder / "home"
        self.templates = folder / "templates"
        self.ports = dict(zip(_PORTS, ports, strict=True))
        self.mlflow = Mlflow(self.url("mlflow"))
        self._clone = folder / "clone"
        self._airflow = httpx.Client(base_url=self.url("airflow"), timeout=60, trust_env=False)
        self._gateway = httpx.Client(base_url=self.url("gateway"), timeout=60, trust_env=False)
        own = {f"TRACKLAYER_{name.upper()}_PORT": str(port) for name, port in self.ports.items()}
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "TRACKLAYER"))},
            **own,
            "TRACKLAYER_HOME": str(self.home),
            "TRACKLAYER_TEMPLATES": str(self.templates),
            "HF_ENDPOINT": hub,
            "KAGGLE_API_ENDPOINT": hub,
            "AIRFLOW__PLANTED__SECRET": self.planted,
            "UV_PUBLISH_TOKEN": self.planted,
        }

    def url(self, part: str) -> str:
        """Where ``airflow``, ``mlflow`` or the ``gateway`` answers."""
        return f"http://127.0.0.1:{self.ports[part]}"

    # The command line

    def tracklayer(self, *arguments: str, fails: int = 0) -> subprocess.CompletedProcess[str]:
        """``tracklayer ...``, which has to end with the exit code ``fails``."""
        done = subprocess.run(
            [str(_TRACKLAYER), *arguments],
            env=self.env,
            cwd=self.home.parent,
            capture_output=True,
            text=True,
            timeout=880,  # the test's own limit ends it earlier, where it has no longer one
            check=False,
        )
        assert done.returncode == fails, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str, fails: int = 0) -> Any:
        """What ``tracklayer ... --json`` prints."""
        return json.loads(self.tracklayer(*arguments, "--json", fails=fails).stdout)

    # git

    def git_push(self, files: Mapping[str, str | bytes]) -> str:
        """Change files with git alone, and nobody checks them; the commit."""
        if not self._clone.exists():
            self._git("clone", "--quiet", str(self.home / "projects.git"), str(self._clone), at=".")
        self._git("pull", "--quiet", "--rebase", "origin", "main", empty_is_fine=True)
        for name, content in files.items():
            path = self._clone / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message=Change it")
        self._git("push", "--quiet", "origin", "HEAD:main")
        return self._git("rev-parse", "HEAD").strip()

    def push(self, name: str, files: Mapping[str, str | bytes]) -> str:
        """Change one project with git, and wait until its next run would use that; the commit."""
        commit = self.git_push({f"{name}/{path}": content for path, content in files.items()})
        path = f"/tracklayer/projects/{name}/commits/{commit}"
        self.until(lambda: self.get(path)["visible"], f"{name} at {commit} is a DAG")
        return commit

    def _git(self, *arguments: str, at: str | None = None, empty_is_fine: bool = False) -> str:
        person = ("-c", "user.name=A Person", "-c", "user.email=a@example.org")
        done = subprocess.run(
            ["git", *person, *arguments],
            cwd=at or self._clone,
            capture_output=True,
            text=True,
            check=False,
        )
        nothing_there = empty_is_fine and "couldn't find remote ref" in done.stderr
        assert done.returncode == 0 or nothing_there, done.stderr
        return done.stdout

    # Airflow's REST API, and what the platform adds to it

    def token(self) -> str:
        """A new token for the REST API."""
        password = json.loads((self.home / "airflow/passwords.json").read_text())["admin"]
        body = {"username": "admin", "password": password}
        answer = self._airflow.post("/auth/token", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["access_token"])

    def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request. Airflow on SQLite answers 500 to one of two changes at the same moment."""
        if "Authorization" not in self._airflow.headers:
            self._airflow.headers["Authorization"] = f"Bearer {self.token()}"
        for _ in range(5):
            answer = self._airflow.request(method, path, **options)
            if answer.status_code < 500:
                break
            time.sleep(0.5)
        return answer

    def get(self, path: str, **params: Any) -> Any:
        """The JSON of a request that has to succeed."""
        answer = self.api("GET", path, params=params)
        assert answer.is_success, answer.text
        return answer.json()

    def trigger(self, project: str, **conf: Any) -> str:
        """Start a run; its id."""
        body = {"logical_date": None, "conf": conf}
        answer = self.api("POST", f"/api/v2/dags/{project}/dagRuns", json=body)
        assert answer.is_success, answer.text
        return str(answer.json()["dag_run_id"])

    def runs(self, project: str) -> list[Data]:
        """The runs of a project, oldest first."""
        path = f"/api/v2/dags/{project}/dagRuns"
        found: list[Data] = self.get(path, order_by="run_after")["dag_runs"]
        return found

    def run(self, project: str, run: str) -> Data:
        """One run."""
        found: Data = self.get(f"/api/v2/dags/{project}/dagRuns/{run}")
        return found

    def wait(self, project: str, run: str, state: str = "success") -> Data:
        """Wait until a run has ended, which it has to do in this state."""

        def ended() -> Data | None:
            now = self.run(project, run)
            return now if now["state"] in _ENDED else None

        what = f"{project} {run} ends"
        found = self.until(ended, what, lambda: self._report(project, run))
        assert found["state"] == state, self._report(project, run)
        return found

    def tasks(self, project: str, run: str) -> dict[str, Data]:
        """The task instances of a run, by the name of the step."""
        path = f"/api/v2/dags/{project}/dagRuns/{run}/taskInstances"
        return {found["task_id"]: found for found in self.get(path)["task_instances"]}

    def wait_running(self, project: str, run: str, task: str, *, tried: int = 1) -> None:
        """Wait until a step of a run is under way."""

        def running() -> bool:
            found = self.tasks(project, run)[task]
            return (found["state"], found["try_number"]) == ("running", tried)

        self.until(running, f"{project} {run} {task} runs", lambda: self._report(project, run))

    def log(self, project: str, run: str, task: str, *, tried: int = 1) -> list[Data]:
        """The entries of a step's log."""
        path = f"/api/v2/dags/{project}/dagRuns/{run}/taskInstances/{task}/logs/{tried}"
        found: list[Data] = self.get(path, full_content=True)["content"]
        return found

    def log_text(self, project: str, run: str, task: str, *, tried: int = 1) -> str:
        """A step's log, whatever is in it."""
        entries = self.log(project, run, task, tried=tried)
        return "\n".join(
            entry["event"] + (json.dumps(entry["error_detail"]) if "error_detail" in entry else "")
            for entry in entries
        )

    def record(self, project: str, run: str) -> Data:
        """The run record."""
        found: Data = self.get(f"/tracklayer/projects/{project}/runs/{run}/record")
        return found

    def links(self, project: str, run: str, task: str) -> dict[str, str | None]:
        """The links beside a step on its page."""
        path = f"/api/v2/dags/{project}/dagRuns/{run}/taskInstances/{task}/links"
        found: dict[str, str | None] = self.get(path)["extra_links"]
        return found

    def _report(self, project: str, run: str) -> str:
        """The steps of a run, and the end of the log of those that did not go well."""
        text = ""
        for name, task in self.tasks(project, run).items():
            text += f"\n{name}: {task['state']}, try {task['try_number']}"
            if task["state"] in ("failed", "running", "up_for_retry"):
                lines = self.log_text(project, run, name, tried=task["try_number"]).splitlines()
                text += "".join(f"\n  | {line}" for line in lines[-40:])
        return f"{project} {run}: {self.run(project, run)['state']}{text}"

    # The endpoints

    def ask(self, project: str, x: float) -> tuple[str, float]:
        """The version that answers at a project's endpoint, and what it makes of ``x``."""
        tensor = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [x]}
        path = f"/{project}/v2/models/{project}/infer"
        answer = self._gateway.post(path, json={"inputs": [tensor]})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        return found["model_version"], found["outputs"][0]["data"][0]

    # The machine

    @property
    def private(self) -> list[Path]:
        """Where it puts what it decrypts: nobody has told it another place."""
        return roots(Settings(home=self.home, private=None))

    def until(self, found: Callable[[], T | None], what: str, report: Callable[[], str] = str) -> T:
        """Ask until the answer is something; the answer."""
        deadline = time.monotonic() + PATIENCE
        while not (answer := found()):
            if time.monotonic() > deadline:
                pytest.fail(f"Not within {PATIENCE:.0f} s: {what}\n{report()}")
            time.sleep(0.3)
        return answer

    def processes(self) -> list[psutil.Process]:
        """All processes that have to do with this home."""
        found = []
        for process in psutil.process_iter():
            try:
                said = [*process.cmdline(), *process.environ().values()]
            except psutil.Error:
                continue
            if any(str(self.home) in text for text in said):
                found.append(process)
        return found

    def assert_nothing_runs(self) -> None:
        """``down`` has left nothing behind."""
        left = self.processes()
        assert not left, [(p.pid, p.cmdline()) for p in left if p.is_running()]


@pytest.fixture(scope="session")
def times() -> Callable[[float], bytes]:
    """Makes an ONNX model from ``x [batch, 1]`` to ``y``, which is a factor times that."""
    return _times


def _times(factor: float) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "times",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    content: bytes = made.SerializeToString()
    return content


@pytest.fixture(scope="session")
def platform(
    tmp_path_factory: pytest.TempPathFactory, free_ports: FreePorts, hub_server: Hub
) -> Iterator[Platform]:
    """The platform, which is up. At the end it is down, and nothing of it is left."""
    folder = tmp_path_factory.mktemp("e2e")
    found = Platform(folder, free_ports(4), hub_server.url)
    found.templates.mkdir()
    for name, text in _TEMPLATES.items():
        (found.templates / name).write_text(text)
    try:
        found.tracklayer("up")
        yield found
    finally:
        found.tracklayer("down")
    found.assert_nothing_runs()
    for left in (Settings(home=found.home).sockets, *found.private, folder):
        shutil.rmtree(left, ignore_errors=True)
