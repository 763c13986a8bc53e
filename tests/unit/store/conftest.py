"""Stores of both kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracklayer.store import Store, keys_of


@pytest.fixture(params=["encrypted", "plain"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Every test of the store holds for both kinds."""
    if request.param == "plain":
        return Store(tmp_path / "store")
    return sealed_store(tmp_path)


@pytest.fixture
def sealed(tmp_path: Path) -> Store:
    """A store that encrypts, with its keys in a file."""
    return sealed_store(tmp_path)


def sealed_store(folder: Path) -> Store:
    root = folder / "store"
    return Store(root, keys_of(f"file:{folder / 'keys' / 'store'}", root=root))
