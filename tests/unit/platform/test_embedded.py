from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tracklayer import platform
from tracklayer.errors import PlatformError
from tracklayer.platform import embedded
from tracklayer.settings import settings


@pytest.fixture
def server() -> Iterator[str]:
    """A server that is healthy."""

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Healthy)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/"
    http.shutdown()
    thread.join()
    http.server_close()


def test_the_platforms_own_servers_are_never_asked_by_way_of_a_proxy(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert embedded._answers(server)
    assert not embedded._answers("http://127.0.0.1:9/")


def test_a_home_is_for_its_owner_and_for_one_at_a_time(own_home: Path) -> None:
    with embedded._alone(settings()):
        assert stat.S_IMODE(own_home.stat().st_mode) == 0o700
        with pytest.raises(PlatformError, match="works on this home"), embedded._alone(settings()):
            raise AssertionError("two at a time")
    with embedded._alone(settings()):
        pass


@pytest.mark.parametrize("home", ["a file", "below a file"])
def test_a_home_that_cannot_be_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRACKLAYER_HOME", str(tmp_path / "file" / ("x" if "below" in home else "")))
    settings.cache_clear()
    try:
        with pytest.raises(PlatformError, match=r"home .*file.* cannot be written") as caught:
            platform.up(print)
        assert "TRACKLAYER_HOME" in str(caught.value.hint)
    finally:
        settings.cache_clear()


def test_what_is_not_there_is_not_made_by_looking(own_home: Path) -> None:
    platform.down(print)
    assert platform.status() == []
    with pytest.raises(PlatformError, match="There is no platform"):
        platform.credentials()
    assert not own_home.exists()


def test_the_addresses_are_those_of_the_settings(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKLAYER_AIRFLOW_PORT", "1")
    monkeypatch.setenv("TRACKLAYER_HOST", "127.0.0.3")
    found = platform.addresses()
    assert found.airflow == "http://127.0.0.3:1"
    assert (found.mlflow, found.gateway) == ("http://127.0.0.3:5000", "http://127.0.0.3:8000")


def test_grpc_has_the_port_after_the_gateways_unless_it_is_told_another(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> tuple[str | None, list[str]]:
        settings.cache_clear()
        [gateway] = [each for each in embedded._programs(settings()) if each.name == "gateway"]
        argv = list(gateway.argv)
        at = argv.index("--grpc-port") if "--grpc-port" in argv else len(argv)
        return platform.addresses().grpc, argv[at : at + 2]

    assert found() == ("127.0.0.1:8001", ["--grpc-port", "8001"])
    monkeypatch.setenv("TRACKLAYER_GATEWAY_PORT", "9000")
    assert found() == ("127.0.0.1:9001", ["--grpc-port", "9001"])
    monkeypatch.setenv("TRACKLAYER_GATEWAY_GRPC_PORT", "7000")
    monkeypatch.setenv("TRACKLAYER_GATEWAY_ADDRESS", "https://models.example.org:8443/x")
    assert found() == ("models.example.org:7000", ["--grpc-port", "7000"])
    monkeypatch.setenv("TRACKLAYER_HOST", "::1")
    monkeypatch.delenv("TRACKLAYER_GATEWAY_ADDRESS")
    assert found()[0] == "[::1]:7000"
    monkeypatch.setenv("TRACKLAYER_GATEWAY_GRPC_PORT", "0")
    assert found() == (None, [])


def test_the_gateway_gets_its_certificate_and_asks_for_keys(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command() -> list[str]:
        settings.cache_clear()
        [found] = [each for each in embedded._programs(settings()) if each.name == "gateway"]
        return list(found.argv)

    plain = command()
    assert plain[plain.index("--access") + 1] == "open"
    assert plain[plain.index("--state") + 1] == str(own_home / "gateway")
    assert "--tls-cert" not in plain
    monkeypatch.setenv("TRACKLAYER_GATEWAY_ACCESS", "keys")
    monkeypatch.setenv("TRACKLAYER_GATEWAY_TLS_CERT", "/etc/a.pem")
    monkeypatch.setenv("TRACKLAYER_GATEWAY_TLS_KEY", "/etc/a.key")
    secure = command()
    assert secure[secure.index("--access") + 1] == "keys"
    assert secure[secure.index("--tls-cert") + 1] == "/etc/a.pem"
    assert secure[secure.index("--tls-key") + 1] == "/etc/a.key"
    assert settings().gateway_url == "https://127.0.0.1:8000"


def test_two_homes_have_two_supervisors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sockets = set()
    for name in ("a", "b"):
        monkeypatch.setenv("TRACKLAYER_HOME", str(tmp_path / name))
        settings.cache_clear()
        sockets.add(settings().sockets)
    settings.cache_clear()
    assert len(sockets) == 2


def test_every_program_is_told_its_home_and_no_secret(own_home: Path) -> None:
    programs = {program.name: program for program in embedded._programs(settings())}
    assert set(programs) == {"mlflow", "gateway", "api-server", "dag-processor", "scheduler"}
    for program in programs.values():
        assert program.env["TRACKLAYER_HOME"] == str(own_home)
        assert program.cwd == own_home
        assert program.logfile.is_relative_to(own_home)
    assert programs["mlflow"].priority < programs["scheduler"].priority
