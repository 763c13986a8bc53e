"""The reference age: the program of the Debian package of that name, with a key of its own."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from bench.measure import NotMeasuredError


class Age:
    """Encrypts and decrypts files for one new recipient.

    :param folder: where its key is made.
    :raises NotMeasuredError: it is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self.identity = folder / "age.key"
        _run(["age-keygen", "-o", str(self.identity)])
        self.recipient = _run(["age-keygen", "-y", str(self.identity)]).strip()
        empty, sealed = folder / "empty", folder / "empty.age"
        empty.touch()
        self._start = {False: 0.0, True: 0.0}
        for seal, source, target in ((True, empty, sealed), (False, sealed, empty)):
            taken = [self.stream(seal, source, target) for _ in range(5)]
            self._start[seal] = statistics.median(taken)

    def stream(self, seal: bool, source: Path, target: Path) -> float:
        """Encrypt or decrypt a file into another, which is written over in place.

        :returns: the seconds that it takes longer than for an empty file: that it has to start
            is not counted, as that of the others is not.
        """
        argv = ["age", "-r", self.recipient] if seal else ["age", "-d", "-i", str(self.identity)]
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            begin = time.perf_counter()
            _run([*argv, str(source)], descriptor)
            return time.perf_counter() - begin - self._start[seal]
        finally:
            os.close(descriptor)


def _run(argv: Sequence[str], stdout: int = subprocess.PIPE) -> str:
    # Without a time limit, with which Popen looks for the end by and by instead of waiting for it.
    if shutil.which(argv[0]) is None:
        raise NotMeasuredError(f"there is no {argv[0]} on this machine")
    done = subprocess.run(argv, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise NotMeasuredError(f"{argv[0]} exited with {done.returncode}: {done.stderr.strip()}")
    return done.stdout or ""


age_in = cache(Age)
"""The one of a folder; made, or refused, when it is first needed."""
