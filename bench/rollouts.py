"""The figure ``rollouts``: twenty deployments, half of them bad, under a constant load."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.children import answer
from bench.measure import NotMeasuredError, Options, Row, say
from bench.reloads import PROXIES, program

_RATE = 300  # requests a second
_REQUESTS = 102_000
_KINDS = "gcgwgCgWgcgwgCgWgcgw"


def run(options: Options) -> list[Row]:
    """Ours, then the references with fewer deployments, all of them good ones."""
    requests, kinds = (7_500, "gcgwgCgW") if options.quick else (_REQUESTS, _KINDS)
    found = _deploy("ours", requests, kinds)
    for failure in found["failures"][:10]:
        say(f"  failed: {failure}")
    what = f"{found['deployments']} deployments, {found['asked']} requests at {_RATE}/s"
    rows = [
        Row(what=f"{what}: failed", unit="requests", ours=[len(found["failures"])], at_most=0),
        Row(
            what=f"answered by a bad version beyond its share ({found['inside']} within)",
            unit="requests",
            ours=[found["outside"]],
            at_most=0,
        ),
        Row(what="rollback, until the last answer", unit="s", ours=found["backs"], at_most=1),
        Row(what="rollback, the whole command", unit="s", ours=found["commands"], at_most=1),
        Row(
            what="taken back after a crash, until the last answer",
            unit="s",
            ours=found["faults"],
            at_most=1,
        ),
    ]
    each = "failed requests a deployment"
    ours = [len(found["failures"]) / found["deployments"]]
    references = {
        "stop": "stop and start",
        "haproxy": "HAProxy reload",
        "nginx": "nginx reload",
    }
    for way, name in references.items():
        rows.append(_reference(each, ours, way, name, quick=options.quick))
    return rows


def _reference(what: str, ours: list[float], way: str, name: str, *, quick: bool) -> Row:
    kinds = "gg" if quick else "ggggg"
    if way in PROXIES and not program(way):
        return Row(what=what, unit="", name=name, missing=f"{way} is not installed")
    try:
        found = _deploy(way, _RATE * 5 * len(kinds), kinds)
    except NotMeasuredError as error:
        return Row(what=what, unit="", name=name, missing=str(error))
    failed = len(found["failures"]) / found["deployments"]
    say(f"  {name}: {failed:.1f} failed a deployment, of {found['asked']}")
    if failed == 0:
        return Row(what=f"{what}; {name} has none either", unit="requests", ours=ours)
    return Row(what=what, unit="requests", ours=ours, name=name, theirs=[failed], at_most=0)


def _deploy(way: str, requests: int, kinds: str) -> dict[str, Any]:
    with TemporaryDirectory(prefix="bench-") as folder:
        return answer("deployments", Path(folder) / "home", way, requests, _RATE, kinds)
