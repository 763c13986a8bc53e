"""The figure ``demo``: the example as a pipeline, beside the same work as a shell script."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from bench import digits
from bench.measure import NotMeasuredError, Options, Row, say
from bench.ours import platform
from bench.processes import clean_environment, timed
from tracklayer.packages.index import uv_variables
from tracklayer.settings import resource

_SCRIPT = Path(__file__).with_name("demo.sh")
_NAME = "shell script"


def run(options: Options) -> list[Row]:
    """Each pair begins from nothing but the cache of packages, and runs twice."""
    ours: dict[str, list[float]] = {"first": [], "second": []}
    theirs: dict[str, list[float]] = {"first": [], "second": []}
    answered: list[float] = []
    missing = ""
    with TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        requirements = folder / "requirements.txt"
        requirements.write_text("\n".join(digits.requirements()) + "\n")
        pairs = options.pairs or 3
        try:
            say("  warm-up: the script once, so that packages are in the cache")
            with _script(folder / "warm", requirements) as script:
                script()
        except NotMeasuredError as error:
            missing = str(error)
        for number in range(pairs):
            home = folder / f"pair-{number}"
            home.mkdir()
            with platform(home) as up, _script(home / "script", requirements) as script:
                up.save(digits.folder())
                up.airflow.wait_for(digits.NAME)
                for which in ours:
                    begin = time.perf_counter()
                    ours[which].append(up.airflow.run(digits.NAME))
                    digits.predict(up)
                    seconds = time.perf_counter() - begin
                    if which == "second":
                        answered.append(seconds)
                    say(f"  {number + 1}/{pairs}  {which} run: {seconds:.1f}")
                    try:
                        if not missing:
                            theirs[which].append(script())
                            say(f"  {number + 1}/{pairs}  {which} script: {theirs[which][-1]:.1f}")
                    except NotMeasuredError as error:
                        missing, theirs = str(error), {which: [] for which in ours}
            shutil.rmtree(home)
    rows = [
        Row(
            what=f"{which} run, trigger to end",
            unit="s",
            ours=ours[which],
            name=_NAME,
            theirs=theirs[which],
            at_most=at_most,
            missing=missing,
        )
        for which, at_most in (("first", 1.5), ("second", None))
    ]
    what = "second run, trigger to answer"
    return [*rows, Row(what=what, unit="s", ours=answered, at_most=25)]


class _Script:
    """The script in a folder of its own. Calling it runs it and gives the seconds it took."""

    def __init__(self, folder: Path, requirements: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._pid = folder / "server.pid"
        self._arguments = [
            str(path) for path in (digits.folder(), resource("infra"), requirements, self._pid)
        ]

    def __call__(self) -> float:
        for program in ("terraform", "curl"):
            if shutil.which(program) is None:
                raise NotMeasuredError(f"there is no {program} on this machine")
        env = clean_environment(BENCH_PYTHON=sys.executable) | uv_variables()
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        argv = ["sh", str(_SCRIPT), *self._arguments]
        return timed(argv, env=env, cwd=self._folder, log=self._folder / "script.log")

    def stop(self) -> None:
        """End its server."""
        if not self._pid.exists():
            return
        try:
            server = psutil.Process(int(self._pid.read_text()))
            if "tracklayer.serving" in server.cmdline():
                server.terminate()
                server.wait(20)
        except psutil.NoSuchProcess:
            pass


@contextmanager
def _script(folder: Path, requirements: Path) -> Iterator[_Script]:
    script = _Script(folder, requirements)
    try:
        yield script
    finally:
        script.stop()
