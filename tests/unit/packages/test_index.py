from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracklayer.errors import PackagesError
from tracklayer.packages.index import no_index, pip_configuration, uv_variables


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment in which no file of this machine's user counts."""
    return {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "xdg")}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def pips_own(environment: dict[str, str]) -> str:
    return subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        env=environment | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_files_count_as_in_pip(home: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "xdg/pip/pip.conf", "[global]\nindex-url = http://g/\nproxy = g:1\n")
    user = "[global]\nindex_url = http://u/\n[install]\nfind-links =\n  /one\n  /two\n"
    write(tmp_path / ".config/pip/pip.conf", user)
    ours = pip_configuration(home)
    assert (ours["index-url"], ours["proxy"]) == ("http://u/", "g:1")
    assert "global.index-url='http://u/'\nglobal.proxy='g:1'\n" in pips_own(home)
    assert ours["find-links"].split() == ["/one", "/two"]

    chosen = write(tmp_path / "chosen.conf", "[global]\ncert = /ca.pem\n")
    home |= {"PIP_CONFIG_FILE": str(chosen)}
    ours = pip_configuration(home)
    assert (ours["index-url"], ours["cert"]) == ("http://g/", "/ca.pem")
    assert "global.cert='/ca.pem'\nglobal.index-url='http://g/'\n" in pips_own(home)


def test_a_section_of_the_command_wins_over_the_common_one_of_any_file(
    home: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path / "xdg/pip/pip.conf", "[install]\nindex-url = http://command/\n")
    write(tmp_path / ".config/pip/pip.conf", "[global]\nindex-url = http://common/\n")
    assert pip_configuration(home)["index-url"] == "http://command/"


def test_variables_win(home: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / ".pip/pip.conf", "[global]\ntimeout = 3\nno-index = false\n")
    home |= {"PIP_TIMEOUT": "5", "PIP_NO_INDEX": "1", "PIP_CERT": ""}
    assert pip_configuration(home)["timeout"] == "5"
    assert no_index(home)
    assert not no_index({"HOME": str(tmp_path)})


def test_pip_becomes_uv(home: dict[str, str]) -> None:
    found = uv_variables(
        home
        | {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": "https://user:s3cret@host/simple",
            "PIP_EXTRA_INDEX_URL": "https://a/simple  https://b/simple",
            "PIP_FIND_LINKS": "/wheels https://c/",
            "PIP_CERT": "/ca.pem",
            "PIP_PROXY": "proxy:3128",
            "PIP_TRUSTED_HOST": "a b",
        }
    )
    assert found == {
        "UV_DEFAULT_INDEX": "https://user:s3cret@host/simple",
        "UV_INDEX": "https://a/simple https://b/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels,https://c/",
        "SSL_CERT_FILE": "/ca.pem",
        "HTTP_PROXY": "http://proxy:3128",
        "HTTPS_PROXY": "http://proxy:3128",
        "ALL_PROXY": "http://proxy:3128",
        "UV_INSECURE_HOST": "a b",
    }


def test_what_is_set_for_uv_wins(home: dict[str, str]) -> None:
    own = {"UV_DEFAULT_INDEX": "https://mine/", "UV_HTTP_TIMEOUT": "9"}
    none = home | {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "https://pips/"}
    assert uv_variables(none | own | {"PIP_TIMEOUT": "3"}) == own


def test_a_damaged_file_is_named(home: dict[str, str], tmp_path: Path) -> None:
    file = write(tmp_path / ".pip/pip.conf", "index-url = x\n")
    with pytest.raises(PackagesError, match=str(file)):
        uv_variables(home)
