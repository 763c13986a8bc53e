from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tracklayer.errors import PlatformError, ServiceError
from tracklayer.gateway.releases import Release, Releases
from tracklayer.serving import Golden

RELEASE = Release(
    version=3, manifest="sha256:aa", replicas=2, golden=Golden({"inputs": []}, {"outputs": []})
)


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    return Releases(tmp_path / "releases" / "digits")


def test_a_release_is_kept_for_its_owner(releases: Releases, tmp_path: Path) -> None:
    assert releases.versions() == []
    releases.save(RELEASE)
    releases.save(RELEASE.model_copy(update={"version": 12}))
    assert releases.load(3) == RELEASE
    assert releases.versions() == [3, 12]
    for path in (tmp_path / "releases").rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077


def test_a_release_that_is_not_there(releases: Releases, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"version 4 was never deployed here\n .*were: none"):
        releases.load(4)
    releases.save(RELEASE)
    (tmp_path / "releases" / "digits" / "3.json").write_text("{")
    with pytest.raises(ServiceError, match=r"digits/3.json is damaged"):
        releases.load(3)
    blocked = Releases(tmp_path / "releases" / "digits" / "3.json" / "x")
    with pytest.raises(PlatformError, match="cannot write to"):
        blocked.save(RELEASE)
