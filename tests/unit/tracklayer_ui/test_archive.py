"""What an upload may be, and what it must never do."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile

import pytest

from tracklayer_ui.api import archive
from tracklayer_ui.api.archive import ArchiveError, TooLargeError, unpack

FILES = {"tracklayer.yaml": b"name: a", "data/x.csv": b"1,2"}


def made_tar(members, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as made:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def made_zip(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for member, content in members:
            made.writestr(member, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "body",
    [
        made_tar(FILES.items()),
        made_tar(FILES.items(), "w:gz"),
        made_zip([("data/", b""), *FILES.items()]),
        made_tar([(f"./{name}", content) for name, content in FILES.items()]),
    ],
    ids=["tar", "tar.gz", "zip", "dotted"],
)
def test_every_form_gives_the_same_files(body):
    assert {file.path: file.content for file in unpack(body)} == FILES


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_a_program_stays_one(form):
    if form == "tar":
        program = tarfile.TarInfo("run.sh")
        program.mode = 0o755
        body = made_tar([(program, b"#!"), ("plain", b"")])
    else:
        program = zipfile.ZipInfo("run.sh")
        program.external_attr = (stat.S_IFREG | 0o755) << 16
        body = made_zip([(program, b"#!"), ("plain", b"")])
    modes = {file.path: file.mode for file in unpack(body)}
    assert modes == {"run.sh": "100755", "plain": "100644"}


def special(kind, name="x", target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def link_in_zip():
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "neither a tar"),
        (b"name: a\n" * 200, "neither a tar"),
        (made_tar([(special(tarfile.SYMTYPE, target="/etc/passwd"), b"")]), "no plain file"),
        (made_tar([(special(tarfile.LNKTYPE, target="../x"), b"")]), "no plain file"),
        (made_tar([(special(tarfile.CHRTYPE), b"")]), "no plain file"),
        (made_tar([(special(tarfile.FIFOTYPE), b"")]), "no plain file"),
        (made_zip([(link_in_zip(), "/etc/passwd")]), "no plain file"),
        (made_tar([("a", b"1"), ("a", b"2")]), "has 'a' twice"),
        (made_tar([("a", b"1"), ("./a", b"2")]), "has 'a' twice"),
        (made_tar([("a", b"1" * 9000)], "w:gz")[:60], "damaged"),
        (made_tar([("a", b"1" * 9000)])[:4000], "damaged"),
        (gzip.compress(b"no tar inside, but long enough to look at" * 50), "damaged"),
    ],
)
def test_what_is_no_project_is_refused(body, message):
    with pytest.raises(ArchiveError, match=message):
        unpack(body)


def test_an_encrypted_zip():
    body = bytearray(made_zip([("a", b"1")]))
    for marker, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = body.index(marker) + offset
        body[at : at + 2] = struct.pack("<H", 1)
    with pytest.raises(ArchiveError, match="cannot be read"):
        unpack(bytes(body))


@pytest.fixture
def low_limits(monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILE", 1000)
    monkeypatch.setattr(archive, "MAX_TOTAL", 2500)
    monkeypatch.setattr(archive, "MAX_FILES", 5)
    monkeypatch.setattr(archive, "MAX_BODY", 40_000)


@pytest.mark.parametrize("make", [made_tar, lambda members: made_tar(members, "w:gz"), made_zip])
@pytest.mark.parametrize(
    "members",
    [
        [("big", b"1" * 1001)],
        [(f"f{n}", b"1" * 900) for n in range(3)],
        [(f"f{n}", b"") for n in range(6)],
    ],
    ids=["a file", "all files", "count"],
)
def test_limits_hold(low_limits, make, members):
    with pytest.raises(TooLargeError):
        unpack(make(members))


def test_a_zip_that_lies_about_its_size(low_limits):
    body = bytearray(made_zip([("a", b"1" * 5000)]))
    for marker, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = body.index(marker) + offset
        body[at : at + 4] = struct.pack("<I", 10)
    with pytest.raises(ArchiveError):
        unpack(bytes(body))


def test_a_bomb_in_a_header_is_stopped_while_it_unpacks(low_limits):
    info = tarfile.TarInfo("a")
    info.pax_headers = {"comment": "x" * 5_000_000}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as made:
        made.addfile(info, io.BytesIO(b""))
    assert len(buffer.getvalue()) < 20_000
    with pytest.raises(TooLargeError):
        unpack(buffer.getvalue())
