from __future__ import annotations

import base64
import hashlib
import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tracklayer.errors import PackagesError
from tracklayer.packages import Environment, accelerator, prepare

REPOSITORY = Path(__file__).parents[3]


def wheel(folder: Path, name: str, version: str = "1.0", requires: str = "") -> None:
    """A real wheel with one module."""
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record += f"{path},sha256={digest.decode()},{len(text)}\n"
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip is set up to look into this folder and nowhere else."""
    folder = tmp_path / "wheels"
    wheel(folder, "alpha", requires="beta>=1")
    wheel(folder, "beta", "1.0")
    wheel(folder, "beta", "1.5")
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Environment]:
    def built(
        *requirements: str,
        python: str = f"{sys.version_info.major}.{sys.version_info.minor}",
        torch_backend: str | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> Environment:
        return prepare(
            requirements,
            python=python,
            environments=tmp_path / "environments",
            torch_backend=torch_backend,
            on_line=on_line,
        )

    return built


def run(environment: Environment, code: str) -> str:
    return subprocess.run(
        [environment.python, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def half_made(tmp_path: Path) -> list[str]:
    folder = tmp_path / "environments"
    return [p.name for p in folder.iterdir() if p.is_dir() and p.name != "locks"]


def test_an_environment_is_built_once_and_offline_after(
    wheels: Path, build: Callable[..., Environment]
) -> None:
    lines: list[str] = []
    made = build("alpha", on_line=lines.append)
    assert made.lock == "alpha==1.0\nbeta==1.5\n"
    assert not made.cached
    assert any("beta" in line for line in lines)
    assert run(made, "import alpha, beta; print(beta.version)") == "1.5"
    assert list(made.python.parents[1].rglob("alpha*.pyc")), "it has bytecode"

    shutil.rmtree(wheels)
    before = time.monotonic()
    again = build("Alpha")
    assert time.monotonic() - before < 0.05
    assert again.cached
    assert (again.python, again.lock, again.digest) == (made.python, made.lock, made.digest)
    assert again.digest.startswith("sha256:")


def test_no_requirements_are_fine(build: Callable[..., Environment]) -> None:
    made = build()
    assert made.lock == ""
    assert run(made, "import sys; print(sys.prefix)") == str(made.python.parents[1])
    assert build().cached


def test_a_killed_build_is_done_again(
    wheels: Path, build: Callable[..., Environment], tmp_path: Path
) -> None:
    made = build("beta")
    folder = made.python.parents[1]
    (folder / "complete.json").unlink()
    (folder / "half").touch()
    again = build("beta")
    assert not again.cached
    assert not (folder / "half").exists()

    made.python.unlink()  # the interpreter has been removed from the machine
    assert not build("beta").cached


def test_a_failed_build_leaves_nothing(
    wheels: Path, build: Callable[..., Environment], tmp_path: Path
) -> None:
    build("beta==1.0")
    (wheels / "beta-1.5-py3-none-any.whl").write_bytes(b"not a wheel")
    before = half_made(tmp_path)
    with pytest.raises(PackagesError, match="beta"):
        build("beta==1.5")
    assert half_made(tmp_path) == before


@pytest.mark.parametrize("moment", ["Using", "Resolved"])
def test_an_interrupted_build_leaves_nothing(
    wheels: Path, build: Callable[..., Environment], tmp_path: Path, moment: str
) -> None:
    def interrupt(line: str) -> None:
        if line.startswith(moment):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build("alpha", on_line=interrupt)
    assert half_made(tmp_path) == []
    assert not build("alpha").cached


def test_two_at_once_build_one(
    wheels: Path, build: Callable[..., Environment], tmp_path: Path
) -> None:
    made: list[Environment] = []
    threads = [threading.Thread(target=lambda: made.append(build("alpha"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(environment.cached for environment in made) == [False, True, True]
    assert len(half_made(tmp_path)) == 1


def test_a_caller_that_is_killed_does_not_let_another_in_while_uv_works(
    wheels: Path, build: Callable[..., Environment], tmp_path: Path
) -> None:
    # It kills itself: another process would have to be faster than uv.
    code = f"""
import os, signal
from pathlib import Path
from tracklayer.packages import prepare
def die(line):
    if line.startswith("Using"):
        os.kill(os.getpid(), signal.SIGKILL)
prepare(["alpha"], python="{sys.version_info.major}.{sys.version_info.minor}",
        environments=Path({str(tmp_path / "environments")!r}), on_line=die)
"""
    caller = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    assert caller.returncode == -signal.SIGKILL
    made = build("alpha")
    assert not made.cached
    assert run(made, "import alpha; print(alpha.version)") == "1.0"


def test_what_cannot_be_resolved_is_said_in_uvs_words(
    wheels: Path, build: Callable[..., Environment]
) -> None:
    with pytest.raises(PackagesError, match=r"cannot be resolved(.|\n)*nosuch-package") as raised:
        build("beta", "nosuch-package")
    assert raised.value.hint
    with pytest.raises(PackagesError, match=r"beta"):
        build("beta>9")


def test_a_python_that_is_not_there(wheels: Path, build: Callable[..., Environment]) -> None:
    with pytest.raises(PackagesError, match=r"no Python 3\.99(.|\n)*uv python install 3\.99"):
        build(python="3.99")
    with pytest.raises(PackagesError, match="not a version"):
        build(python="../../bin/python")


@pytest.fixture
def secretive() -> Iterator[str]:
    """An index that knows nobody."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_indexs_password_is_shown_nowhere(
    wheels: Path,
    build: Callable[..., Environment],
    secretive: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:s3cret-password@{secretive}/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    lines: list[str] = []
    with pytest.raises(PackagesError) as raised:
        build("nosuch-package", on_line=lines.append)
    assert "nosuch-package" in str(raised.value)
    assert "s3cret" not in str(raised.value) + "".join(lines)

    made = build("beta==1.5", on_line=lines.append)  # from the folder
    assert secretive not in made.lock
    for path in (tmp_path / "environments").rglob("*"):
        if path.is_file() and path.suffix in (".json", ".txt", ".cfg", ".lock"):
            assert "s3cret" not in path.read_text()
    assert "s3cret" not in "".join(lines)


def test_cuda_packages_without_an_accelerator_are_not_taken(
    wheels: Path,
    build: Callable[..., Environment],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accelerator, "present", lambda: False)  # this machine may have one
    wheel(wheels, "nvidia_nccl", "13.4")
    wheel(wheels, "torch", "9.0", requires="nvidia-nccl")
    wheel(wheels, "boost", requires="nvidia-nccl")
    with pytest.raises(PackagesError, match="no accelerator") as raised:
        build("torch")
    assert "TRACKLAYER_TORCH_BACKEND" in str(raised.value)
    assert half_made(tmp_path) == []
    assert "nvidia-nccl==13.4" in build("torch", torch_backend="cu128").lock
    assert "nvidia-nccl==13.4" in build("boost").lock

    wheel(wheels, "torch", "9.0+cpu")
    assert build("torch==9.0").lock == "torch==9.0+cpu\n"


def test_a_package_of_the_real_index(build: Callable[..., Environment]) -> None:
    made = build("six==1.17.0")
    assert run(made, "import six; print(six.__version__)") == "1.17.0"
