"""How much is in a store."""

from __future__ import annotations

from pathlib import Path

from tracklayer.store import Store
from tracklayer.store.seal import CHUNK, sealed_size


def test_everything_is_counted(sealed: Store, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(bytes(1000))
    (tmp_path / "tree" / "b").write_bytes(bytes(CHUNK + 1))
    sealed.set_ref("one", sealed.put_tree(tmp_path / "tree"))
    sealed.remember("two", sealed.put_tree(tmp_path / "tree"))
    (tmp_path / "c").write_bytes(bytes(70))
    Store(sealed.root).put_file(tmp_path / "c")
    with sealed.draft("x", 5 * CHUNK) as draft:
        draft.write(4, bytes(CHUNK))
        usage = sealed.usage()
    assert usage[:5] == (2, 1, 1, 2, 1)
    assert usage.sealed_bytes == sealed_size(1000) + sealed_size(CHUNK + 1)
    assert usage.plain_bytes == 70
    # What has not arrived takes no room.
    assert CHUNK <= usage.draft_bytes < 2 * CHUNK
