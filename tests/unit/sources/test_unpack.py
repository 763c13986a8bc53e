"""Archives: what is in them reaches the store, or nothing of it and an error that says why."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import subprocess
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources.unpack import Bounds, unpack
from tracklayer.store import Blob, Store, keys_of

Make = Callable[..., bytes]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", keys_of(f"file:{tmp_path}/keys/store", root=tmp_path))


def put(store: Store, data: bytes) -> Blob:
    with store.create() as writer:
        writer.write(data)
        return writer.commit()


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = 8) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return packed.getvalue()


def tarred(
    *members: tuple[str | tarfile.TarInfo, bytes], compress: Callable[[bytes], bytes] = bytes
) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            member.size = len(data) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(data))
    return compress(packed.getvalue())


def made(store: Store, data: bytes, name: str = "f.zip") -> dict[str, bytes]:
    found = {}
    for file in unpack(put(store, data), name, store):
        with store.open(file) as stream:
            found[file.path] = stream.read()
    return found


GOOD = {"a.csv": b"a,b\n1,2\n", "deep/er/b.bin": bytes(3_000_000), "empty": b""}


@pytest.mark.parametrize("method", [0, 8, 12, 14])
def test_zips(store: Store, method: int) -> None:
    folder = zipfile.ZipInfo("deep/")
    data = zipped((folder, b""), *GOOD.items(), method=method)
    assert made(store, data) == GOOD
    assert set(made(store, data, "x/y/f.zip")) == {f"x/y/{name}" for name in GOOD}


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars(tmp_path: Path, store: Store, compress: Callable[[bytes], bytes], form: int) -> None:
    long = "d/" + "long" * 40 + "/" + "é" * 60
    files = GOOD | ({long: b"x"} if form != tarfile.USTAR_FORMAT else {})
    for name, data in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    (tmp_path / "in/a.csv").chmod(0o755)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        archive.add(tmp_path / "in", ".")
    data = compress(packed.getvalue())
    blob = put(store, data)
    assert made(store, data) == files
    executable = {file.path: file.executable for file in unpack(blob, "f.tar", store)}
    assert executable == {name: name == "a.csv" for name in files}


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def zip_link(name: str, mode: int = stat.S_IFLNK) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, (mode | 0o777) << 16
    return member


NAMES = [
    ("../x", "leads out"),
    ("a/../../x", "leads out"),
    ("a/..", "leads out"),
    ("/etc/passwd", "absolute"),
    ("//host/x", "absolute"),
    ("C:/x", "absolute"),
    ("c:x", "absolute"),
    ("..\\x", "backslash"),
    ("a\\..\\..\\x", "backslash"),
    ("a\nb", "control"),
    ("a" * 300, "too long"),
]


@pytest.mark.parametrize(("name", "why"), NAMES)
@pytest.mark.parametrize("make", [zipped, tarred])
def test_names_that_lead_elsewhere(store: Store, make: Make, name: str, why: str) -> None:
    with pytest.raises(SourceError, match=f"f.zip is not unpacked: .*{why}") as caught:
        made(store, make(("good.csv", b"1"), (name, b"x")))
    assert repr(name) in str(caught.value)


def test_a_zero_byte_in_a_name(store: Store) -> None:
    data = zipped(("a_b.csv", b"1")).replace(b"a_b.csv", b"a\0b.csv")
    with pytest.raises(SourceError, match="control character"):
        made(store, data)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "a"),
        ("a", "A"),
        ("é", "e\u0301"),
        ("ß", "SS"),
        ("a/b", "a/./b"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("A/b", "a"),
        ("ﬁ", "fi"),
    ],
)
@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_meet(store: Store, make: Make, one: str, other: str) -> None:
    with pytest.raises(SourceError, match="has the name of"):
        made(store, make((one, b"1"), (other, b"2")))


@pytest.mark.parametrize(
    "member",
    [
        link("l", "/etc/passwd"),
        link("l", "good.csv"),
        link("l", "good.csv", tarfile.LNKTYPE),
        link("l", "", tarfile.CHRTYPE),
        link("l", "", tarfile.BLKTYPE),
        link("l", "", tarfile.FIFOTYPE),
    ],
    ids=["absolute", "symbolic", "hard", "character", "block", "fifo"],
)
def test_links_and_devices_in_a_tar(store: Store, member: tarfile.TarInfo) -> None:
    with pytest.raises(SourceError, match="'l' is a link, a device"):
        made(store, tarred(("good.csv", b"1"), (member, b"")))


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO])
def test_links_and_devices_in_a_zip(store: Store, mode: int) -> None:
    with pytest.raises(SourceError, match="'l' is a link or a device"):
        made(store, zipped(("good.csv", b"1"), (zip_link("l", mode), b"/etc/passwd")))


def test_a_sparse_tar(tmp_path: Path, store: Store) -> None:
    with (tmp_path / "f").open("wb") as stream:
        stream.seek(1 << 30)
        stream.write(b"x")
    subprocess.run(["tar", "-cSf", "f.tar", "f"], cwd=tmp_path, check=True)
    with pytest.raises(SourceError, match="sparse"):
        made(store, (tmp_path / "f.tar").read_bytes())


@pytest.mark.parametrize(
    "data",
    [
        zipped(("bomb", bytes(80 << 20))),
        tarred(("bomb", bytes(80 << 20)), compress=gzip.compress),
        tarred(("bomb", bytes(80 << 20)), compress=bz2.compress),
        tarred(("bomb", bytes(80 << 20)), compress=lzma.compress),
    ],
    ids=["zip", "gz", "bz2", "xz"],
)
def test_bombs(store: Store, data: bytes) -> None:
    """What counts is what comes out, not what a header says."""
    with pytest.raises(SourceError, match=r"'bomb' makes it larger than 67\.1 MB"):
        made(store, data)


def test_a_zip_that_lies_about_its_sizes(store: Store) -> None:
    """The list of members says 10 bytes; they are 80 MB, or the archive is damaged."""
    data = bytearray(zipped(("bomb", bytes(80 << 20))))
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 10)
    with pytest.raises(SourceError, match=r"damaged at 'bomb'"):
        made(store, bytes(data))


def test_bombs_at_the_end_of_a_tar(store: Store) -> None:
    import gzip

    data = gzip.compress(tarred(("a", b"1")) + bytes(80 << 20))
    with pytest.raises(SourceError, match="bomb"):
        made(store, data)


def test_a_tar_with_a_header_that_fills_the_memory(store: Store) -> None:
    import gzip

    member = tarfile.TarInfo("pax")
    member.type, member.size = tarfile.XHDTYPE, 1 << 30
    data = gzip.compress(member.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match="an extended header of 1073741824 bytes"):
            made(store, data)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_a_zip_with_a_list_that_fills_the_memory(store: Store) -> None:
    entry = zipped(("a", b"1"))
    central = entry[entry.index(b"PK\x01\x02") : entry.index(b"PK\x05\x06")]
    count = (64 << 20) // len(central) + 2
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central) * count, 0, 0)
    with pytest.raises(SourceError, match="a list of members of"):
        made(store, central * count + end)


@pytest.mark.parametrize("make", [zipped, tarred])
def test_too_many_members(store: Store, make: Make) -> None:
    data = make(*((str(number), b"1") for number in range(30)))
    with pytest.raises(SourceError, match="more than 20 members"):
        unpack(put(store, data), "f", store, bounds=Bounds(members=20))


def test_an_encrypted_zip(store: Store) -> None:
    data = bytearray(zipped(("a", b"1")))
    data[6] |= 1
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    with pytest.raises(SourceError, match="'a' is encrypted"):
        made(store, bytes(data))


def test_an_unknown_method(store: Store) -> None:
    data = bytearray(zipped(("a", b"1")))
    at = data.index(b"PK\x01\x02")
    data[at + 10 : at + 12] = struct.pack("<H", 97)
    with pytest.raises(SourceError, match="compressed by method 97"):
        made(store, bytes(data))


NOISE = bytes(range(256)) * 4000


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    "data",
    [
        zipped(("a", NOISE)),
        tarred(("a", NOISE), compress=gzip.compress),
        tarred(("a", NOISE), compress=bz2.compress),
        tarred(("a", NOISE), compress=lzma.compress),
    ],
    ids=["zip", "gz", "bz2", "xz"],
)
def test_truncated(store: Store, data: bytes, share: float) -> None:
    with pytest.raises(SourceError, match="damaged"):
        made(store, data[: int(len(data) * share)])


@pytest.mark.parametrize(
    "data",
    [
        zipped(("a", NOISE), method=0),
        tarred(("a", NOISE), compress=gzip.compress),
        tarred(("a", NOISE), compress=lzma.compress),
    ],
    ids=["zip", "gz", "xz"],
)
def test_flipped_bits(store: Store, data: bytes) -> None:
    wrong = bytearray(data)
    wrong[len(data) // 2] ^= 4
    with pytest.raises(SourceError, match="damaged"):
        made(store, bytes(wrong))


@pytest.mark.parametrize("data", [b"", b"x", b"\x1f\x8b", bytes(10_000), b"PK\3\4" * 100, NOISE])
def test_what_is_no_archive(store: Store, data: bytes) -> None:
    with pytest.raises(SourceError, match=r"f\.zip is (no archive|an empty archive|damaged)"):
        made(store, data)


def test_empty_archives(store: Store) -> None:
    for data in (zipped(), tarred(), zipped((zipfile.ZipInfo("d/"), b""))):
        with pytest.raises(SourceError, match="empty archive"):
            made(store, data)


def test_nothing_plain_on_the_disk(store: Store) -> None:
    secret = b"something that nobody else may read " * 10_000
    made(store, zipped(("a", secret), method=8))
    for path in store.root.rglob("*"):
        assert not path.is_file() or secret[:36] not in path.read_bytes()
