from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from tracklayer.errors import PlatformError
from tracklayer.gateway import Route
from tracklayer.gateway.routes import load, save

ROUTES = {
    "digits": Route.of(3, [Path("/run/a"), Path("/run/b")]),
    "other": Route.of(1, [Path("/run/c")]),
}


def test_routes_are_kept_for_their_owner(tmp_path: Path) -> None:
    file = tmp_path / "new" / "routes.json"
    save(file, ROUTES)
    assert load(file) == ROUTES
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["routes.json"]


def test_files_from_before_there_were_weights_are_read(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    file.write_text('{"digits": {"version": 3, "backends": ["/run/a"]}}')
    assert load(file) == {"digits": Route.of(3, [Path("/run/a")])}


def test_routes_with_all_they_have_are_kept(tmp_path: Path) -> None:
    route = Route(
        versions={3: [Path("/run/a")], 12: [Path("/run/b"), Path("/run/c")]},
        weights={3: 9, 12: 1},
        aliases={"champion": 3, "next": 12},
        access="keys",
    )
    save(tmp_path / "routes.json", {"digits": route})
    assert load(tmp_path / "routes.json") == {"digits": route}
    assert (route.version, route.backends) == (3, [Path("/run/a")])


def test_no_file_yet_is_no_routes(tmp_path: Path) -> None:
    assert load(tmp_path / "routes.json") == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "EOF"),
        ('{"digits": {"version": 3', "EOF"),
        ("[]", "valid dict|object"),
        ('{"Digits": {"version": 3, "backends": ["/a"]}}', "Digits"),
        ('{"digits": {"version": "3", "backends": ["/a"]}}', "digits.*valid integer"),
        ('{"digits": {"version": 3, "backends": []}}', "digits.versions.3: .* at least 1"),
        ('{"digits": {"version": 3, "backends": ["a"]}}', "absolute path"),
        ('{"digits": {"versions": {"3": ["/a"]}, "weights": {"3": 1}, "more": 1}}', "digits.more"),
        (
            '{"digits": {"versions": {"3": ["/a"]}, "weights": {"4": 1}}}',
            "version 4 has no servers",
        ),
        ('{"digits": {"versions": {"3": ["/a"]}, "weights": {"3": 0}}}', "a share above 0"),
        ('{"digits": {"versions": {"3": ["/a"]}, "weights": {"3": 1.5}}}', "digits.weights.3"),
    ],
)
def test_a_damaged_file_is_an_error_and_stays(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "routes.json"
    file.write_text(text)
    with pytest.raises(PlatformError, match=rf"(?s)routes.json are damaged: .*({problem})"):
        load(file)
    assert file.read_text() == text


def test_a_file_that_cannot_be_written_is_an_error_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    save(file, ROUTES)
    blocked = tmp_path / "file" / "routes.json"
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match="cannot write the routes"):
        save(blocked, {})
    assert json.loads(file.read_text()).keys() == ROUTES.keys()


@pytest.mark.parametrize("backends", [[], [Path("relative")], [Path("/" + "a" * 107)]])
def test_a_route_needs_sockets(backends: list[Path]) -> None:
    with pytest.raises(ValidationError):
        Route(version=1, backends=backends)


def test_a_socket_counts_once() -> None:
    assert Route.of(1, [Path("/a"), Path("/a")]).backends == [Path("/a")]
