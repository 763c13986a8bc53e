from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from tracklayer.errors import PlatformError
from tracklayer.sockets import LONGEST, accepts, grpc_beside, listen_tcp, listen_unix


def test_a_unix_socket_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "new" / "s"
    with listen_unix(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert accepts(path)


def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listen_unix(path).close()
    assert path.is_socket()
    assert not accepts(path)
    with listen_unix(path):
        assert accepts(path)


def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listen_unix(path):
        with pytest.raises(PlatformError, match="another process listens there"):
            listen_unix(path)
        assert accepts(path)


def test_a_file_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("mine")
    with pytest.raises(PlatformError, match="not a socket"):
        listen_unix(path)
    assert path.read_text() == "mine"


def test_a_path_that_is_too_long_says_so(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="longer than 107 bytes"):
        listen_unix(tmp_path / ("s" * 107))


def test_a_port_in_use_says_which() -> None:
    with listen_tcp("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PlatformError, match=f"cannot listen on 127.0.0.1:{port}"):
            listen_tcp("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port)):
            pass


def test_the_socket_of_grpc_is_another_one_that_is_as_short() -> None:
    longest = Path("/" + "x" * (LONGEST - 6) + ".sock")
    assert len(str(grpc_beside(longest))) == LONGEST
    assert grpc_beside(Path("/a/b.sock")) == Path("/a/b.grpc")
    assert len({grpc_beside(Path(name)) for name in ("/a", "/a.b", "/a.c", "/a.sock.sock")}) == 4
