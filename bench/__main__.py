"""``python -m bench [NAME ...]``: measure figures, print them, write them to ``bench/results``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Never

from bench.measure import NotMeasuredError, Options, Row, report, save, say, show
from tracklayer.errors import TracklayerError

FIGURES = {
    "chain": "ten no-op steps in a chain, warm, triggered through the REST API",
    "push": "a project pushed until it is a DAG",
    "projects": "all projects visible, from an empty database, two parsing processes",
    "build": "one DAG from its spec, after imports",
    "demo": "the example, from its spec to an answered prediction, packages cached",
    "idle": "the platform idle, everything up",
    "store": "files encrypted, stored, read in part, given another key",
    "hop": "a request by way of the gateway, proxy and server on one core",
    "rollouts": "versions that take over under a constant load, half of them bad",
    "fetch": "files from a hub on this machine, by us and by huggingface_hub",
    "serving": "a model behind HTTP: rate, latency, start, memory",
    "encoder": "an encoder of DistilBERT's size over HTTP, on one thread, as it is and optimised",
    "optimise": "networks as the optimise step serves them, beside every candidate, on one thread",
}
"""Name of a module of this package -> what it measures."""

_NO_FILE = Path()
_INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it


def main() -> int:
    """Exit code 0: all was measured; 1: something of ours could not be."""
    options = _arguments()
    names = options.names or list(FIGURES)
    if options.report == _NO_FILE:
        sys.stdout.write(report(names) + "\n")
        return 0
    # What is under measurement must not compile its modules anew at each start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    wanted = Options(options.pairs, options.projects, options.seconds, options.quick)
    failed = False
    for name in names:
        say(f"{name}: {FIGURES[name]}")
        try:
            rows: list[Row] = import_module(f"bench.{name}").run(wanted)
        except (NotMeasuredError, TracklayerError) as error:
            rows, failed = [Row(what=FIGURES[name], unit="", missing=str(error))], True
        show(name, FIGURES[name], rows)
        if not wanted.quick:
            say(f"  written to {save(name, FIGURES[name], rows)}")
    if options.report:
        options.report.write_text(report(names) + "\n")
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    about = "; ".join(f"{name}: {what}" for name, what in FIGURES.items())
    parser = argparse.ArgumentParser(prog="python -m bench", description=about)
    names = parser.add_argument("names", nargs="*", metavar="NAME", help="figures; default: all")
    parser.add_argument("--pairs", type=int, help="how often each side is measured")
    parser.add_argument("--projects", type=int, default=1000, help="how many (`projects`)")
    parser.add_argument("--seconds", type=float, default=60, help="of one window (`idle`)")
    quick = "small sizes, where there are any: to see that all works; nothing is written"
    parser.add_argument("--quick", action="store_true", help=quick)
    newest = "print the newest results, no more; with FILE: measure, then write them there"
    parser.add_argument(
        "--report", nargs="?", type=Path, const=_NO_FILE, metavar="FILE", help=newest
    )
    options = parser.parse_args()
    for name in options.names:
        if name not in FIGURES:
            parser.error(str(argparse.ArgumentError(names, f"{name} is none of {list(FIGURES)}")))
    if options.report and (options.quick or str(options.report) in FIGURES):
        parser.error("--report comes after the names of figures, and not with --quick")
    return options


def _interrupt(signum: int, frame: FrameType | None) -> Never:  # noqa: ARG001
    """Stop everything that was started, undisturbed by a second Ctrl-C, and end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which programs would inherit
    say("  stopping")
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("Interrupted. What was started is stopped.")
        sys.exit(_INTERRUPTED)
