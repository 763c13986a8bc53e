from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tracklayer.errors import (
    JobCancelled,
    JobError,
    JobFailed,
    StoreError,
)
from tracklayer.files import read_record
from tracklayer.runtimes import Job, JobResult, ProcessRuntime, linux, process

RUNTIME = ProcessRuntime()
REPOSITORY = Path(__file__).parents[3]

# As people write them for SageMaker's PyTorch containers.
SAGEMAKER = """
import argparse, json, os
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--learning-rate", type=float, default=1.0)
parser.add_argument("--hosts", type=list, default=json.loads(os.environ["SM_HOSTS"]))
parser.add_argument("--model-dir", type=str, default=os.environ["SM_MODEL_DIR"])
parser.add_argument("--data-dir", type=str, default=os.environ["SM_CHANNEL_TRAINING"])
parser.add_argument("--num-gpus", type=int, default=os.environ["SM_NUM_GPUS"])
args = parser.parse_args()
rows = open(os.path.join(args.data_dir, "rows.csv")).read().split()
with open(os.path.join(args.model_dir, "model.txt"), "w") as f:
    f.write(f"{args.epochs} {args.learning_rate} {len(rows)} {args.num_gpus}")
open("scratch", "w").write("the working directory is the job's own")
print("done")
"""

# A daemon that leaves its parent, its session, and ignores SIGTERM.
DAEMON = """
import os, signal, sys, time
if os.fork():
    os.wait(); print("up", flush=True); time.sleep(600)
os.setsid()
if os.fork():
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("daemon.pid", "w").write(str(os.getpid()))
time.sleep(600)
"""


def until(done: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


class Background:
    """A run in a thread, with its lines and what came of it."""

    def __init__(self, job: Job, offset: int = 0, runtime: ProcessRuntime = RUNTIME) -> None:
        self.lines: list[str] = []
        self.result: JobResult | None = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(job, offset, runtime))
        self._thread.start()

    def _run(self, job: Job, offset: int, runtime: ProcessRuntime) -> None:
        try:
            self.result = runtime.run(job, self.lines.append, offset=offset)
        except Exception as error:  # noqa: BLE001 - it is looked at in the test
            self.error = error

    def wait(self) -> Background:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self


def test_a_sagemaker_script_runs_unchanged(make: Callable[..., Job], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "rows.csv").write_text("1\n2\n3\n")
    (tmp_path / "code").chmod(0o555)
    lines: list[str] = []
    job = make(
        SAGEMAKER,
        argv=["train.py"],
        inputs={"training": data},
        hyperparameters={"epochs": 5, "learning-rate": 0.001},
    )
    result = RUNTIME.run(job, lines.append)
    assert (result.model / "model.txt").read_text() == "5 0.001 3 0"
    assert lines == ["done"]
    assert result.exit_code == 0
    assert 0 < (result.ended - result.started).total_seconds() < 10
    assert 1 << 20 < result.peak_memory < 1 << 30
    assert [p.name for p in (tmp_path / "code").iterdir()] == ["train.py"]
    assert stat.S_IMODE((job.folder / "job.json").stat().st_mode) == 0o600


def test_the_platforms_secrets_never_reach_the_job(
    make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW_CONN_AWS", "HF_TOKEN", "SECRET_X"):
        monkeypatch.setenv(name, "planted-secret")
    monkeypatch.setenv("SSL_CERT_FILE", "/some/ca.pem")
    script = """
import json, os
print(json.dumps([dict(os.environ), open(f"/proc/{os.getppid()}/environ").read()]))
"""
    lines: list[str] = []
    RUNTIME.run(make(script, env={"MLFLOW_RUN_ID": "abc"}, cpus=1), lines.append)
    environment, guards = json.loads(lines[0])
    assert "planted-secret" not in lines[0]
    assert "planted-secret" not in guards
    assert environment["MLFLOW_RUN_ID"] == "abc"
    assert environment["SSL_CERT_FILE"] == "/some/ca.pem"
    assert environment["PYTHONUNBUFFERED"] == environment["OMP_NUM_THREADS"] == "1"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""


def test_nothing_of_the_output_is_lost(make: Callable[..., Job]) -> None:
    script = """
import os, sys
for n in range(50000): print(n)
sys.stdout.flush()
os.write(2, b"to \\xff stderr\\nwithout newline")
os._exit(0)
"""
    lines: list[str] = []
    RUNTIME.run(make(script), lines.append)
    assert lines == [*map(str, range(50000)), "to \ufffd stderr", "without newline"]


def test_a_failure_is_explained_and_the_next_run_is_a_new_attempt(
    make: Callable[..., Job],
) -> None:
    job = make("""
import os, sys
marker = os.environ["SM_MODEL_DIR"] + "/../checkpoints/step"
if os.path.exists(marker):
    print("resumed"); sys.exit(0)
open(marker, "w").write("1")
open(os.environ["SM_OUTPUT_DIR"] + "/failure", "w").write("the labels are missing")
print("about to fail")
sys.exit(3)
""")
    with pytest.raises(JobFailed) as raised:
        RUNTIME.run(job)
    for part in ("exit code 3", "| about to fail", "the labels are missing"):
        assert part in str(raised.value)
    lines: list[str] = []
    result = RUNTIME.run(job, lines.append)
    assert (lines, result.attempt, result.adopted) == (["resumed"], 2, False)
    first = job.folder / "attempt-1"
    assert (first / "output" / "failure").read_text() == "the labels are missing"
    assert (first / "output.log").read_text() == "about to fail\n"

    again = RUNTIME.run(job, lines.append)
    assert (again.attempt, again.adopted, again.started) == (2, True, result.started)
    other = RUNTIME.run(replace(job, hyperparameters={"x": 1}, argv=["-S", "-c", "pass"]))
    assert (other.attempt, other.adopted) == (3, False)
    assert not (job.folder / "checkpoints" / "step").exists(), "another job's checkpoint"


def test_a_job_survives_its_caller_and_is_adopted_with_its_log(
    make: Callable[..., Job], tmp_path: Path
) -> None:
    job = make("""
import os, time
print("one", flush=True)
while not os.path.exists("go"): time.sleep(0.02)
print("two")
""")
    code = f"""
import sys
from pathlib import Path
from tracklayer.runtimes import Job, ProcessRuntime
job = Job(name={job.name!r}, folder=Path({str(job.folder)!r}), argv={job.argv!r}, timeout=60,
          python=Path(sys.executable), code=Path({str(job.code)!r}), grace=1)
ProcessRuntime().run(job, lambda line: print(line, flush=True))
"""
    caller = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        start_new_session=True,
    )
    assert caller.stdout
    assert caller.stdout.readline() == b"one\n"
    os.killpg(caller.pid, signal.SIGKILL)
    caller.wait()
    caller.stdout.close()

    second, third = Background(job), Background(job, offset=len("one\n"))
    until(lambda: second.lines == ["one"])
    (job.folder / "code" / "go").touch()
    assert second.wait().lines == ["one", "two"]
    assert third.wait().lines == ["two"]
    assert second.result
    assert third.result
    assert (second.result.attempt, second.result.adopted, third.result.adopted) == (1, True, True)


def test_two_runs_at_once_start_one_job(make: Callable[..., Job], tmp_path: Path) -> None:
    count = tmp_path / "count"
    job = make(f"open({str(count)!r}, 'a').write('x'); print('ran')")
    runs = [Background(job, runtime=ProcessRuntime()) for _ in range(4)]
    assert [run.wait().lines for run in runs] == [["ran"]] * 4
    assert count.read_text() == "x"
    assert sorted(run.result.adopted for run in runs if run.result) == [False, True, True, True]


def test_cancel_ends_daemons_too(make: Callable[..., Job]) -> None:
    job = make(DAEMON)
    run = Background(job)
    until(lambda: run.lines == ["up"])
    daemon = int((job.folder / "code" / "daemon.pid").read_text())
    assert psutil.Process(daemon).ppid() != os.getpid()
    before = time.monotonic()
    RUNTIME.cancel(job)
    assert time.monotonic() - before < 0.2
    assert isinstance(run.wait().error, JobCancelled)
    assert linux.identity(daemon) is None
    RUNTIME.cancel(job)  # nothing is left to cancel
    fresh = Background(replace(job, argv=["-S", "-c", "print('again')"])).wait()
    assert (fresh.error, fresh.lines) == (None, ["again"])


def test_cancel_works_in_a_signal_handler_of_the_waiting_thread(make: Callable[..., Job]) -> None:
    job = make("import time; print('up', flush=True); time.sleep(600)")

    def on_line(line: str) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    old = signal.signal(signal.SIGUSR1, lambda *_: RUNTIME.cancel(job))
    try:
        with pytest.raises(JobCancelled):
            RUNTIME.run(job, on_line)
    finally:
        signal.signal(signal.SIGUSR1, old)


def test_a_daemon_left_by_a_job_that_ended_well_is_ended(make: Callable[..., Job]) -> None:
    job = make(DAEMON.replace("time.sleep(600)", "sys.exit()", 1))
    before = time.monotonic()
    assert RUNTIME.run(job).exit_code == 0
    assert time.monotonic() - before < 5
    assert linux.identity(int((job.folder / "code" / "daemon.pid").read_text())) is None


def test_a_killed_guard_takes_the_job_with_it(make: Callable[..., Job]) -> None:
    job = make(DAEMON)
    run = Background(job)
    until(lambda: run.lines == ["up"])
    daemon = int((job.folder / "code" / "daemon.pid").read_text())
    guard = read_record(job.folder / "guard.json")
    assert guard
    os.kill(guard["pid"], signal.SIGKILL)
    assert isinstance(run.wait().error, JobFailed)
    assert "ended from outside" in str(run.error)
    until(lambda: linux.identity(daemon) is None)
    again = Background(replace(job, argv=["-S", "-c", "pass"])).wait()
    assert again.result
    assert again.result.attempt == 2


def test_another_definition_ends_the_one_that_runs(make: Callable[..., Job]) -> None:
    job = make("import time; print('up', flush=True); time.sleep(600)")
    old = Background(job)
    until(lambda: old.lines == ["up"])
    new = Background(replace(job, argv=["-S", "-c", "print('new')"])).wait()
    assert (new.error, new.lines) == (None, ["new"])
    assert isinstance(old.wait().error, JobCancelled)
    assert old.lines == ["up"]


def test_whoever_follows_an_attempt_that_was_put_aside_is_told(
    make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The follower comes late to its job's end, when the next attempt has come and gone."""
    follow, aside = process._follow, threading.Event()

    def late(folder: Path, on_line: Callable[[str], None], offset: int) -> None:
        follow(folder, on_line, offset)
        if threading.current_thread() is old._thread:
            aside.wait(30)

    monkeypatch.setattr(process, "_follow", late)
    job = make("import time; print('up', flush=True); time.sleep(600)")
    old = Background(job)
    until(lambda: old.lines == ["up"])
    new = Background(replace(job, argv=["-S", "-c", "print('new')"])).wait()
    aside.set()
    assert (new.error, new.lines) == (None, ["new"])
    assert isinstance(old.wait().error, JobCancelled)
    assert "another attempt took its place" in str(old.error)
    assert (old.result, old.lines) == (None, ["up"])


def test_what_cannot_start_says_why(make: Callable[..., Job], tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"could not be started.*no-such-program"):
        RUNTIME.run(make("", python=None, argv=["no-such-program"]))
    with pytest.raises(JobError, match="its Python is not there"):
        RUNTIME.run(make("", python=tmp_path / "gone"))
    with pytest.raises(JobError, match="asks for 99 gpus, this machine has"):
        RUNTIME.run(make("", gpus=99, folder=tmp_path / "other"))
    assert not (tmp_path / "other" / "job.json").exists()


def test_a_full_disk_is_said(make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    job = make("print('x')", env={"BIG": "x" * 100_000})
    job.folder.mkdir()
    # Its temporary name leads to a device that is always full.
    (job.folder / f".job.json.{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(StoreError, match="no space is left"):
        RUNTIME.run(job)
    assert RUNTIME.run(job).attempt == 1
