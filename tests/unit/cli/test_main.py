from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMANDS = (
    "new validate schema push run runs logs status predict up down doctor demo".split()  # noqa: SIM905
)
RUN = [sys.executable, "-c", "from tracklayer.cli.main import run; run()"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_knows_json(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert "--json" in out


def test_help_lists_all_commands_and_imports_nothing_heavy():
    code = (
        "import sys; from tracklayer.cli.main import main; main(['--help']);"
        "heavy = {'airflow', 'mlflow', 'httpx', 'pydantic', 'onnxruntime', 'git'};"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f" {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("arguments", [["nope"], ["push", "--nope"], ["runs", "--limit", "x"]])
def test_a_wrong_command_line_has_its_own_exit_code(call, arguments):
    code, out, err = call(*arguments)
    assert (code, out) == (64, "")
    assert "nope" in err or "limit" in err

    code, out, err = call(*arguments, "--json")
    assert (code, err) == (64, "")
    assert json.loads(out)["error"]["exit_code"] == 64


def test_an_error_is_text_on_stderr_or_json_on_stdout(call, tmp_path):
    code, out, err = call("validate", str(tmp_path))
    assert (code, out) == (3, "")
    assert "has no tracklayer.yaml" in err
    assert "tracklayer new NAME" in err
    assert "\x1b" not in err

    code, out, err = call("validate", str(tmp_path), "--json")
    assert (code, err) == (3, "")
    error = json.loads(out)["error"]
    assert error["kind"] == "ProjectError"
    assert "has no tracklayer.yaml" in error["message"]


def test_a_fault_is_one_line_and_a_private_log(call, tmp_path, monkeypatch):
    def broken(*_arguments: object) -> None:
        raise RuntimeError("no such thing\nas a second line")

    monkeypatch.setenv("TRACKLAYER_HOME", str(tmp_path / "home"))
    from tracklayer import settings

    settings.settings.cache_clear()
    try:
        monkeypatch.setattr("tracklayer.cli.projects.checked", broken)
        code, out, err = call("validate", str(tmp_path))
    finally:
        settings.settings.cache_clear()
    log = tmp_path / "home/logs/cli.log"
    assert (code, out) == (70, "")
    assert err.splitlines() == [
        "This is a fault of tracklayer: RuntimeError: no such thing",
        f"The details are in {log}.",
    ]
    assert "Traceback" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_ctrl_c_is_one_line(server, tmp_path):
    server.answers["GET /api/v2/dags/~/dagRuns"] = lambda _asked: time.sleep(3) or (200, {})
    env = os.environ | {"TRACKLAYER_URL": server.url, "TRACKLAYER_TOKEN": "t"}
    with subprocess.Popen(
        [*RUN, "runs"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not server.asked:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "Interrupted.\n")


def test_a_reader_that_leaves_is_no_error():
    with subprocess.Popen(
        [*RUN, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_terminal_without_the_signs_gets_others(tmp_path):
    env = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    Path(tmp_path / "tracklayer.yaml").write_text("näme: x\n", encoding="utf-8")
    done = subprocess.run(
        [*RUN, "validate", str(tmp_path)], env=env, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"n?me" in done.stderr
