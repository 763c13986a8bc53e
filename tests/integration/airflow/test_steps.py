"""Steps as a worker runs them: in a process of their own, from the bundle, against the API."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, TypeVar, cast

import pytest

from tracklayer import private
from tracklayer.errors import TracklayerError
from tracklayer.settings import settings
from tracklayer.spec import loads
from tracklayer.store import open_store
from tracklayer.tracking import run_folder

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tests.conftest import Hub, Remote
    from tests.integration.airflow.conftest import Airflow as _Airflow
    from tracklayer_airflow.bundle import ProjectBundle as _Bundle

DATA = "name: p\ntemplate: data@1\nsources: {d: 'path:data'}\n"
CHAIN = "name: p\ntemplate: chain@1\n"


T = TypeVar("T")


def until(done: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_step_notes_its_outcome_and_hands_on_a_reference(
    airflow: _Airflow, remote: Remote
) -> None:
    commit = remote.push({"p/tracklayer.yaml": DATA, "p/data/a.txt": "some data"})
    airflow.sync()
    run = airflow.trigger("p")
    assert run.step("fetch-d") == "success"

    folder = run_folder(settings().runs, "p", run.run_id)
    assert run.xcom("fetch-d") == {"return_value": {"record": str(folder), "step": "fetch-d"}}
    record = run.record()
    assert (record["project"], record["run"], record["commit"]) == ("p", run.run_id, commit)
    noted = record["steps"]["fetch-d"]
    assert [(file["path"], file["size"]) for file in noted["files"]] == [("a.txt", 9)]
    assert not noted["cached"]
    open_store().materialise(noted["manifest"], folder / "out")
    assert (folder / "out" / "a.txt").read_text() == "some data"
    assert any("1 files, 9 bytes, fetched" in line for line in run.said("fetch-d"))


def test_a_download_is_a_live_line_in_the_log(
    airflow: _Airflow, remote: Remote, hub_server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes, rate and time left, while it goes on."""
    monkeypatch.setenv("HF_ENDPOINT", hub_server.url)
    source = DATA.replace("path:data", "hf://datasets/lab/many")
    remote.push({"p/tracklayer.yaml": source})
    airflow.sync()
    run = airflow.trigger("p")
    hub_server.knobs(latency=0.7)
    try:
        assert run.step("fetch-d") == "success"
    finally:
        hub_server.knobs(latency=0)
    said = run.said("fetch-d")
    live = r"hf://datasets/lab/many: \d+ B of 527 B, \d+ B/s, \d+ s left, file \d+ of 52"
    assert [line for line in said if re.fullmatch(live, line)], said
    assert any("in 52 files" in line for line in said)


def test_a_second_try_is_added_to_the_record(airflow: _Airflow, remote: Remote) -> None:
    remote.push({"p/tracklayer.yaml": CHAIN})
    airflow.sync()
    run = airflow.trigger("p")
    assert [run.step("one"), run.step("one")] == ["success", "success"]
    log = run.record()["log"]
    assert [(entry["step"], entry["try"]) for entry in log] == [("one", 1), ("one", 2)]


def test_a_run_keeps_the_files_of_its_commit(airflow: _Airflow, remote: Remote) -> None:
    first = remote.push({"p/tracklayer.yaml": DATA, "p/data/a": "old"})
    airflow.sync()
    before = airflow.trigger("p")
    changed = DATA.replace("sources:", "description: newer\nsources:")
    second = remote.push({"p/tracklayer.yaml": changed, "p/data/a": "newer"})
    airflow.sync()
    after = airflow.trigger("p")
    assert (before.version, after.version) == (first, second)
    assert [before.step("fetch-d"), after.step("fetch-d")] == ["success", "success"]
    sizes = [run.record()["steps"]["fetch-d"]["files"][0]["size"] for run in (before, after)]
    assert sizes == [len("old"), len("newer")]
    assert before.record()["commit"] == first


def test_new_files_without_a_new_spec_are_used_by_the_next_run(
    airflow: _Airflow, remote: Remote
) -> None:
    remote.push({"p/tracklayer.yaml": DATA, "p/data/a": "old"})
    airflow.sync()
    second = remote.push({"p/data/a": "newer"})
    airflow.sync()
    run = airflow.trigger("p")
    assert run.version == second
    assert run.step("fetch-d") == "success"
    assert run.record()["steps"]["fetch-d"]["files"][0]["size"] == len("newer")


def test_a_mistake_of_the_user_is_told_without_a_traceback_and_not_tried_again(
    airflow: _Airflow, remote: Remote
) -> None:
    remote.push({"p/tracklayer.yaml": DATA, "p/other": "x"})
    airflow.sync()
    run = airflow.trigger("p")
    assert run.step("fetch-d") == "failed"
    assert run.tries("fetch-d") == 1
    errors = run.said("fetch-d", "error")
    assert any("path:data" in line for line in errors), errors
    assert not [line for line in run.log("fetch-d") if line.get("error_detail")]
    assert run.record()["steps"] == {}
    assert "return_value" not in run.xcom("fetch-d")


def test_a_record_that_cannot_be_written_is_told_without_a_traceback(
    airflow: _Airflow, remote: Remote
) -> None:
    remote.push({"p/tracklayer.yaml": CHAIN})
    airflow.sync()
    run = airflow.trigger("p")
    settings().runs.parent.mkdir(parents=True)
    settings().runs.write_text("a file where the folder of the runs belongs")
    assert run.step("one") == "failed"
    assert any("cannot be written" in line for line in run.said("one", "error"))
    assert not [line for line in run.log("one") if line.get("error_detail")]


def test_only_other_content_sets_off_who_waits_for_the_data(
    airflow: _Airflow, remote: Remote
) -> None:
    follower = "name: f\ntemplate: chain@1\nschedule: {after: [p/d]}\n"
    remote.push({"p/tracklayer.yaml": DATA, "p/data/a": "one", "f/tracklayer.yaml": follower})
    airflow.sync()
    assert airflow.trigger("p").step("fetch-d") == "success"
    first = events("p/d")
    assert len(first) == 1
    assert waiting_for("f") == 1
    assert airflow.trigger("p").step("fetch-d") == "success"
    assert events("p/d") == first, "the same content is no event"

    remote.push({"p/data/a": "two"})
    airflow.sync()
    run = airflow.trigger("p")
    assert run.step("fetch-d") == "success"
    second = events("p/d")
    assert len(second) == 2
    assert second[1] == run.record()["steps"]["fetch-d"]["manifest"] != first[0]


def events(name: str) -> list[str]:
    """The digests of an asset's events, in order."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = (
            session.query(AssetEvent)
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .filter(AssetModel.name == name)
            .order_by(AssetEvent.id)
        )
        return [row.extra["digest"] for row in rows]


def waiting_for(dag: str) -> int:
    """How many changed assets a DAG's next run would be for."""
    from airflow.models.asset import AssetDagRunQueue
    from airflow.utils.session import create_session

    with create_session() as session:
        return int(session.query(AssetDagRunQueue).filter_by(target_dag_id=dag).count())


# Steps of the test's own: they wait for a file, so that the test can look at them meanwhile.
DAG_FILE = """
from pathlib import Path
import os, time
from airflow.sdk import DAG
from tracklayer.spec import loads
from tracklayer_airflow.links import EndpointLink
from tracklayer_airflow.operators.step import StepOperator

HERE = Path({here!r})

class Shown(StepOperator):
    operator_extra_links = (EndpointLink(),)
    def perform(self, context, record):
        EndpointLink().push(context, "http://gateway.example.org/p")
        (HERE / "pid").write_text(str(os.getpid()))
        while not (HERE / "go-on").exists():
            time.sleep(0.02)
        return {{"bytes": 1_000_000 * "x"}}

class Faulty(StepOperator):
    def perform(self, context, record):
        raise ZeroDivisionError("a fault of ours")

with DAG("own", schedule=None) as dag:
    spec = loads("name: own\\ntemplate: chain@1\\n")
    Shown(task_id="shown", spec=spec, commit="c0ffee")
    Faulty(task_id="faulty", spec=spec, commit="c0ffee")
"""


@pytest.fixture
def own(airflow: _Airflow, tmp_path: Path) -> Iterator[Path]:
    """A folder through which the steps of ``DAG_FILE`` are told to go on."""
    (tmp_path / "dags" / "own.py").write_text(DAG_FILE.format(here=str(tmp_path)))
    assert airflow.sync() == {}
    yield tmp_path
    (tmp_path / "go-on").touch()


def meanwhile(own: Path, look: Callable[[int], T]) -> Future[T]:
    """Do something while the step ``shown`` runs, with the number of its process."""

    def wait() -> T:
        until(lambda: (own / "pid").exists() and (own / "pid").read_text() != "")
        try:
            return look(int((own / "pid").read_text()))
        finally:
            (own / "go-on").touch()

    return ThreadPoolExecutor(1).submit(wait)


def test_a_link_is_there_while_the_step_runs_and_stays(airflow: _Airflow, own: Path) -> None:
    url = "http://gateway.example.org/p"
    run = airflow.trigger("own")
    seen = meanwhile(own, lambda pid: run.xcom("shown"))
    assert run.step("shown") == "success"
    assert seen.result(10) == {"_link_EndpointLink": url}
    left = run.xcom("shown")
    assert left.pop("_link_EndpointLink") == url
    assert set(left) == {"return_value"}
    assert len(str(left)) < 1000, "data went to the record, not to Airflow's database"
    assert len(run.record()["steps"]["shown"]["bytes"]) == 1_000_000


def test_a_fault_of_the_platform_keeps_its_traceback_and_is_tried_again(
    airflow: _Airflow, own: Path
) -> None:
    run = airflow.trigger("own")
    assert [run.step("faulty") for _ in range(3)] == ["up_for_retry", "up_for_retry", "failed"]
    details = [line["error_detail"] for line in run.log("faulty") if line.get("error_detail")]
    assert "ZeroDivisionError" in str(details)


# The project's files, as several steps of one run take them from the bare repository.


@pytest.fixture
def unpack(
    remote: Remote, open_bundle: Callable[..., _Bundle], own_home: Path
) -> Callable[..., Path]:
    """Takes the files of project ``p`` at a commit (default: the newest), for a run."""
    from tracklayer_airflow.operators.noop import NoopOperator

    def take(run: str = "run", *, version: str | None = None, commit: str | None = None) -> Path:
        bundle = open_bundle(version=version)
        bundle.initialize()
        step = NoopOperator(task_id="one", spec=loads(CHAIN), commit=commit)
        context = cast("Context", {"ti": SimpleNamespace(bundle_instance=bundle), "run_id": run})
        return step.project_folder(context)

    return take


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_files_are_those_of_the_commit(remote: Remote, unpack: Callable[..., Path]) -> None:
    files = {"p/tracklayer.yaml": CHAIN, "p/a b/ü.txt": "1", "q/secret": "of another project"}
    first = remote.push(files)
    remote.link("p/link", "a b")
    second = remote.push({"p/a b/ü.txt": "2"})
    assert contents(unpack("r1", version=first)) == {"tracklayer.yaml": CHAIN, "a b/ü.txt": "1"}
    folder = unpack("r2", version=second)
    assert contents(folder)["a b/ü.txt"] == "2"
    assert (folder / "link").is_symlink()
    assert (folder / "link" / "ü.txt").read_text() == "2"
    assert not (folder.parent / "q").exists()
    assert unpack("r3", commit=first).joinpath("a b", "ü.txt").read_text() == "1"
    assert unpack("r4").joinpath("a b", "ü.txt").read_text() == "2"


def test_what_is_left_out_of_an_export_is_no_less_part_of_the_project(
    remote: Remote, unpack: Callable[..., Path]
) -> None:
    attributes = "*.txt export-subst\nhidden export-ignore\n"
    files = {"p/tracklayer.yaml": CHAIN, "p/.gitattributes": attributes, "p/hidden": "seen"}
    files |= {"p/a.txt": "$Format:%H$\n"}
    remote.push(files)
    assert contents(unpack()) == {name.removeprefix("p/"): text for name, text in files.items()}


def test_two_steps_may_unpack_at_once(remote: Remote, unpack: Callable[..., Path]) -> None:
    files = {f"p/{number}": "x" * 10_000 for number in range(200)}
    remote.push({"p/tracklayer.yaml": CHAIN, **files})
    for attempt in range(5):
        barrier = threading.Barrier(3)

        def one(run: str = f"run{attempt}", barrier: threading.Barrier = barrier) -> Path:
            barrier.wait(30)
            return unpack(run)

        with ThreadPoolExecutor(3) as steps:
            folders = [future.result(60) for future in [steps.submit(one) for _ in range(3)]]
        assert len(set(folders)) == 1
        assert len(contents(folders[0])) == 201
        left = {path.name for path in folders[0].parent.parent.iterdir()}
        assert left == {folders[0].parent.name}


def test_a_link_out_of_the_project_is_the_users_mistake(
    remote: Remote, unpack: Callable[..., Path]
) -> None:
    remote.push({"p/tracklayer.yaml": CHAIN})
    remote.link("p/passwords", "/etc/passwd")
    with pytest.raises(TracklayerError, match="passwords"):
        unpack()


def test_a_commit_that_is_gone_is_an_error_that_says_so(
    remote: Remote, unpack: Callable[..., Path]
) -> None:
    remote.push({"p/tracklayer.yaml": CHAIN})
    with pytest.raises(TracklayerError, match="ffff"):
        unpack(commit="f" * 40)
    (folder,) = private.run_folders("p", private.run_name("run"))
    assert list(folder.iterdir()) == [], "nothing is left half done"


def test_a_project_that_is_not_in_the_commit_is_an_error_that_says_so(
    remote: Remote, unpack: Callable[..., Path]
) -> None:
    remote.push({"q/tracklayer.yaml": CHAIN})
    with pytest.raises(TracklayerError, match="p"):
        unpack()


def test_a_repository_that_cannot_be_read_is_an_error_that_says_so(
    unpack: Callable[..., Path],
) -> None:
    with pytest.raises(TracklayerError, match="cannot be read"):
        unpack()
