"""What the tests of formats share: a file made of bytes, and a pickle that would do harm."""

from __future__ import annotations

import io
import os
from collections.abc import Callable

import pytest

from tracklayer.formats import Format, recognise

Tell = Callable[..., Format]


@pytest.fixture(scope="session")
def tell() -> Tell:
    """What these bytes are, under this name."""
    return lambda data, name="file": recognise(io.BytesIO(data), name)


class Harm:
    """Unpickling one would run a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo this must never run",)


@pytest.fixture(scope="session")
def harm() -> Harm:
    return Harm()
