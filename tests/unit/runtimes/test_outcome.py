from __future__ import annotations

from pathlib import Path

import pytest

from tracklayer.errors import JobError, JobFailed, JobOutOfMemory, JobTimeout
from tracklayer.runtimes.job import Job
from tracklayer.runtimes.outcome import outcome


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "output").mkdir()
    (tmp_path / "output.log").write_text("".join(f"line {n}\n" for n in range(100)))
    return Job(name="j", folder=tmp_path, argv=["train.py"], memory=3 << 29, timeout=5400)


def ending(reason: str, code: int | None = None) -> dict[str, object]:
    return {"reason": reason, "exit_code": code, "used": 2 << 30, "error": "no such file: x"}


def test_a_failure_shows_its_code_last_lines_and_own_reason(job: Job) -> None:
    (job.folder / "output" / "failure").write_text("the labels are missing" + "x" * 5000)
    with pytest.raises(JobFailed) as raised:
        outcome(job, ending("exited", 3), adopted=False)
    text = str(raised.value)
    assert "job j ended with exit code 3" in text
    assert "  | line 99" in text
    assert "line 79" not in text
    assert "the labels are missing" in text
    assert len(text) < 2000


def test_a_signal_has_a_name(job: Job) -> None:
    with pytest.raises(JobFailed, match="was ended by SIGSEGV"):
        outcome(job, ending("exited", -11), adopted=False)
    with pytest.raises(JobFailed, match=r"SIGKILL(.|\n)*may have run out of memory"):
        outcome(job, ending("exited", -9), adopted=False)
    with pytest.raises(JobFailed, match="by signal 40"):
        outcome(job, ending("exited", -40), adopted=False)


def test_limits_say_what_to_set(job: Job) -> None:
    with pytest.raises(JobOutOfMemory, match=r"used 2 GiB .* limit is 1.5 GiB(.|\n)*train.resourc"):
        outcome(job, ending("memory"), adopted=False)
    with pytest.raises(JobTimeout, match=r"limit of 1h30m(.|\n)*train.resources.timeout"):
        outcome(job, ending("timeout"), adopted=False)


def test_other_endings(job: Job) -> None:
    with pytest.raises(JobError, match="could not be started: no such file: x"):
        outcome(job, ending("start"), adopted=False)
    with pytest.raises(JobFailed, match="ended from outside"):
        outcome(job, None, adopted=False)
