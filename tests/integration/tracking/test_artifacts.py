"""MLflow's artifacts in the store: its own client and its page, against a real server process."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

from tracklayer.errors import TrackingError
from tracklayer.store import Blob
from tracklayer.tracking import Tracking
from tracklayer.tracking.rest import Rest

if TYPE_CHECKING:
    from tests.integration.conftest import TightDisk
    from tests.integration.tracking.conftest import Server

MARKER = b"every good boy deserves fudge"
MIB = 1024**2
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"

CLIENT = Path(__file__).with_name("unchanged_client.py")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of files with odd names, the marker in each."""
    folder = tmp_path / "files"
    (folder / "deep/er").mkdir(parents=True)
    (folder / "a note.txt").write_bytes(MARKER)
    (folder / "empty").touch()
    (folder / "deep/er/ünï ç (1).bin").write_bytes(os.urandom(3 * MIB) + MARKER)
    (folder / "deep/.hidden.json").write_bytes(b"{}" + MARKER)
    (folder / ("n" * 240)).write_bytes(MARKER)
    return folder


def put(server: Server, path: str, content: bytes) -> httpx.Response:
    return httpx.put(f"{server.url}{ARTIFACTS}/{path}", content=content)


def get(server: Server, path: str) -> httpx.Response:
    return httpx.get(f"{server.url}{ARTIFACTS}/{path}")


def plain(folder: Path, what: bytes) -> list[Path]:
    """The files that have something in plain, or in their names."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and (what in path.read_bytes() or what in os.fsencode(path.name))
    ]


def half(server: Server, path: str, size: int) -> socket.socket:
    """An upload that stops after half of what it announced."""
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port))
    head = f"PUT {ARTIFACTS}/{path} HTTP/1.1\r\nHost: {address.netloc}\r\n"
    connection.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode())
    connection.sendall((MARKER * (size // 2 // len(MARKER) + 1))[: size // 2])
    return connection


def until(condition: Callable[[], object], within: float = 10) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_unchanged_client_and_nothing_in_plain(
    served: Server, files: Path, tmp_path: Path
) -> None:
    tracking = Tracking(served.url)
    run = tracking.start("fudge", "r")
    tracking.log_model(run.id, files)
    tracking.promote("fudge", tracking.register("fudge", run.id).version)
    (tmp_path / "client").mkdir()
    variables = {
        "MLFLOW_TRACKING_URI": served.url,
        "MLFLOW_RUN_ID": run.id,
        "TMPDIR": str(tmp_path / "client"),
    }
    done = subprocess.run(
        [sys.executable, str(CLIENT), str(files), MARKER.decode()],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    page = {"path": "text.txt", "run_uuid": run.id}
    assert httpx.get(f"{served.url}/get-artifact", params=page).content == MARKER
    version = {"path": "a note.txt", "name": "fudge", "version": "1"}
    found = httpx.get(f"{served.url}/model-versions/get-artifact", params=version)
    assert found.content == MARKER
    upload = {"run_uuid": run.id, "path": "by/the page.txt"}
    address = f"{served.url}/ajax-api/2.0/mlflow/upload-artifact"
    httpx.post(address, params=upload, content=MARKER).raise_for_status()
    page["path"] = "by/the page.txt"
    assert httpx.get(f"{served.url}/get-artifact", params=page).content == MARKER

    assert plain(tmp_path, MARKER)  # it would be seen
    assert plain(served.home, MARKER) == plain(served.private, MARKER) == []
    assert plain(served.home, hashlib.sha256(MARKER).hexdigest()[2:].encode())
    assert served.temporary() == []
    assert served.store.verify() == []


def test_what_the_page_asks_for(served: Server) -> None:
    tracking = Tracking(served.url)
    run = tracking.start("page", "r").id
    content = os.urandom(2 * MIB + 7)
    place = Rest(served.url).get("runs/get", run_id=run)["run"]["info"]["artifact_uri"]
    path = f"{place.removeprefix('mlflow-artifacts:/')}/vidéo.html"
    assert put(served, path, content).status_code == 200
    asked = httpx.Request(
        "GET", f"{served.url}/get-artifact", params={"path": "vidéo.html", "run_id": run}
    )
    with httpx.Client() as client:
        whole = client.send(asked)
        asked.headers["Range"] = "bytes=1048570-1048579"
        part = client.send(asked)
        asked.headers["If-None-Match"] = whole.headers["ETag"]
        del asked.headers["Range"]
        assert client.send(asked).status_code == 304
    assert whole.content == content
    assert (part.status_code, part.content) == (206, content[1048570:1048580])
    # Never shown in the name of the server: a page in an artifact could act as its user.
    for answer in (whole, get(served, path)):
        assert answer.headers["Content-Disposition"].startswith("attachment; filename=video.html")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Length"] == str(len(content))


def test_nothing_is_written_while_it_is_sent(served: Server) -> None:
    """Neither to a client nor to the page, which MLflow itself would do by a temporary file."""
    tracking = Tracking(served.url)
    run = tracking.start("sent", "r").id
    place = Rest(served.url).get("runs/get", run_id=run)["run"]["info"]["artifact_uri"]
    path = f"{place.removeprefix('mlflow-artifacts:/')}/large"
    put(served, path, b"\0" * 64 * MIB).raise_for_status()
    for address in (f"{ARTIFACTS}/{path}", f"/get-artifact?path=large&run_id={run}"):
        with httpx.stream("GET", f"{served.url}{address}") as answer:
            parts = answer.iter_bytes(MIB)
            assert next(parts)
            assert served.temporary() == []
            assert sum(map(len, parts)) == 63 * MIB


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "%2e%2e/x", "%252e%252e/x", "a/%2e%2e/x", "%2Fetc/x", "a%23b"]
)
def test_a_path_that_leads_out(served: Server, path: str) -> None:
    # Sent as it is: a client would make it shorter first.
    address = urlsplit(served.url)
    for method in ("PUT", "GET", "DELETE"):
        with socket.create_connection((address.hostname, address.port)) as connection:
            head = f"{method} {ARTIFACTS}/{path} HTTP/1.1\r\nHost: {address.netloc}\r\n"
            connection.sendall(f"{head}Content-Length: 1\r\nConnection: close\r\n\r\nx".encode())
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert answer.split()[1] in (b"400", b"308"), answer  # 308: to the same without a slash
    names = [ref.name for ref in served.store.refs()]
    assert all(name.startswith("mlflow/") for name in names)
    assert not any(name.endswith("/x") for name in names)


def test_an_experiment_cannot_lie_over_other_references(served: Server) -> None:
    """Whoever may use MLflow names the place of an experiment; ours are not among them."""
    store = served.store
    store.set_ref("deployments/mine/1", put_bytes(served, MARKER))
    rest = Rest(served.url)
    for number, place in enumerate(("tracklayer:///deployments", "tracklayer:///../deployments")):
        made = rest.post("experiments/create", name=f"over-{number}", artifact_location=place)
        run = rest.post("runs/create", experiment_id=made["experiment_id"])["run"]["info"]
        for path in ("1", "../../mine/1", "mine/1"):
            query = {"run_id": run["run_id"], "path": path}
            assert httpx.get(f"{served.url}/get-artifact", params=query).status_code >= 400
    assert store.ref("deployments/mine/1")


def put_bytes(server: Server, content: bytes) -> Blob:
    with server.store.create() as writer:
        writer.write(content)
        return writer.commit()


def test_two_uploads_at_once(served: Server) -> None:
    contents = [bytes([number]) * (4 * MIB + number) for number in range(4)]
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda c=content: answers.append(put(served, "at/once", c)))
        for content in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 4
    assert get(served, "at/once").content in contents
    found = httpx.get(f"{served.url}{ARTIFACTS}", params={"path": "at"}).json()["files"]
    assert [entry["path"] for entry in found] == ["once"]


def test_an_upload_that_breaks_off(served: Server) -> None:
    put(served, "broken/off", b"before")
    with half(served, "broken/off", 8 * MIB):
        until(lambda: any((served.home / "store/tmp").iterdir()))
    until(lambda: not any((served.home / "store/tmp").iterdir()))
    assert get(served, "broken/off").content == b"before"


def test_a_large_file_takes_little_memory(served: Server) -> None:
    size = 200 * MIB

    def resident() -> int:
        """The most that was resident since the last reset, in bytes."""
        status = Path(f"/proc/{served.process.pid}/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])

    def reset() -> None:
        Path(f"/proc/{served.process.pid}/clear_refs").write_text("5")

    block = os.urandom(MIB)

    def body() -> Iterator[bytes]:
        for number in range(200):
            yield number.to_bytes(4) + block[4:]

    reset()
    before = resident()
    address = f"{served.url}{ARTIFACTS}/large/file.bin"
    httpx.put(
        address, content=body(), headers={"Content-Length": str(size)}, timeout=60
    ).raise_for_status()
    digest = hashlib.sha256()
    with httpx.stream("GET", address) as answer:
        for part in answer.iter_bytes():
            digest.update(part)
    assert digest.digest() == hashlib.sha256(b"".join(body())).digest()
    assert resident() - before < 48 * MIB


def test_no_multipart_upload(served: Server) -> None:
    address = f"{served.url}/api/2.0/mlflow-artifacts/mpu/create/a"
    answer = httpx.post(address, json={"path": "a/b", "num_parts": 2})
    assert answer.status_code == 501
    assert "Multipart upload is not supported" in answer.json()["message"]


def test_a_damaged_object_is_not_sent(served: Server) -> None:
    content = os.urandom(3 * MIB)
    put(served, "will/break", content)
    digest = hashlib.sha256(content).hexdigest()
    sealed = served.home / "store/sealed" / digest[:2] / digest[2:]
    sealed.chmod(0o600)
    damaged = bytearray(sealed.read_bytes())
    damaged[2 * MIB] ^= 1
    sealed.write_bytes(damaged)
    try:
        with pytest.raises(TrackingError, match="cannot be reached"):
            list(Rest(served.url).download("will/break"))
    finally:
        sealed.unlink()
        httpx.delete(f"{served.url}{ARTIFACTS}/will/break").raise_for_status()


def test_gc_of_mlflow_and_of_the_store(served: Server) -> None:
    tracking, rest = Tracking(served.url), Rest(served.url)
    run = tracking.start("gone", "r").id
    tracking.log_record(run, {"said": MARKER.decode()[::-1]})
    store = served.store
    (name,) = [ref.name for ref in store.refs("mlflow/") if f"/{run}/" in ref.name]
    blob = store.ref(name)
    assert isinstance(blob, Blob)
    rest.post("runs/delete", run_id=run)
    database = f"sqlite:///{served.home / 'mlflow/mlflow.db'}"
    subprocess.run(
        [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", database, "--run-ids", run],
        env={**os.environ, "MLFLOW_TRACKING_URI": served.url},
        check=True,
        capture_output=True,
    )
    assert store.ref(name) is None
    store.open(blob).close()
    store.collect()
    with pytest.raises(Exception, match="not in the store"):
        store.open(blob)


def test_a_full_disk(own_server: Server, tight_disk: TightDisk) -> None:
    """Nothing of the upload is there, what was there stays, and the client is told why."""
    own_server.home.mkdir()
    (tight_disk.folder / "store").mkdir()
    (own_server.home / "store").symlink_to(tight_disk.folder / "store")
    own_server.start()
    put(own_server, "on/disk", b"before").raise_for_status()
    for pages in (0, 3, 700):
        tight_disk.leave(pages)
        for content in (os.urandom(4 * MIB), os.urandom(20_000)):
            answer = put(own_server, "on/disk", content)
            if answer.status_code != 200:
                assert answer.status_code == 500
                assert "Free some space" in answer.json()["message"]
        assert pages == 700 or get(own_server, "on/disk").content == b"before"
        assert list((own_server.home / "store/tmp").iterdir()) == []
    assert answer.status_code == 200  # there was room enough for a small one
    assert get(own_server, "on/disk").content == content
    tight_disk.clear()
    assert own_server.store.verify() == []
    put(own_server, "on/disk", b"\0" * 4 * MIB).raise_for_status()


def test_an_older_home_and_a_killed_server(own_server: Server) -> None:
    """Artifacts that lie in plain files are taken into the store; what is half sent is not there.

    One server for both: it takes seconds to start.
    """
    older = own_server.home / "mlflow/artifacts/1/abc/artifacts"
    (older / "model").mkdir(parents=True)
    (older / "record.json").write_bytes(MARKER)
    (older / "model/ünï 1.bin").write_bytes(MARKER + os.urandom(MIB))
    (older / ".artifact.uploading.x1y2").write_bytes(MARKER)
    (older / "nothing").mkdir()
    content = (older / "model/ünï 1.bin").read_bytes()
    own_server.start()
    assert get(own_server, "1/abc/artifacts/record.json").content == MARKER
    assert get(own_server, "1/abc/artifacts/model/ünï 1.bin").content == content
    assert sorted(ref.name for ref in own_server.store.refs("mlflow/")) == [
        "mlflow/1/abc/artifacts/model/ünï 1.bin",
        "mlflow/1/abc/artifacts/record.json",
    ]
    assert not (own_server.home / "mlflow/artifacts").exists()
    assert plain(own_server.home, MARKER) == []

    with (
        half(own_server, "2/b/large", 32 * MIB),
        half(own_server, "1/abc/artifacts/record.json", 8),
    ):
        until(lambda: any((own_server.home / "store/tmp").iterdir()))
        own_server.kill()
    own_server.start()
    assert get(own_server, "2/b/large").status_code == 404
    assert get(own_server, "1/abc/artifacts/record.json").content == MARKER
    assert plain(own_server.home, MARKER) == []
    put(own_server, "2/b/large", b"whole").raise_for_status()  # whoever writes next sweeps
    assert list((own_server.home / "store/tmp").iterdir()) == []
    assert own_server.store.verify() == []
    own_server.stop()
    assert list(own_server.private.glob("*/temporary/*")) == []
