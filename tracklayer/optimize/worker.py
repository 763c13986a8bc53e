"""One candidate in a process of its own, as it would be served: what crashes crashes alone.

``python -m tracklayer.optimize.worker`` builds and answers what ``job.json`` in its folder says,
and then times itself once for each line that it reads. It writes a line of JSON for each: what it
found, or ``{"failed": <why>}``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tracklayer.errors import ModelError, TracklayerError
from tracklayer.optimize import requests
from tracklayer.optimize.candidates import CANDIDATES, REGISTERED, NotApplicableError
from tracklayer.optimize.holdout import FILES
from tracklayer.optimize.network import assemble, dims, opened
from tracklayer.serving.formats import load
from tracklayer.serving.model import Array, Model, RequestError

if TYPE_CHECKING:
    from tracklayer.optimize.network import Network

JOB, MODEL = "job.json", "model"
"""In a candidate's folder: what it is to do, and the model folder that it is."""
GRAPH, PLACES, FEEDS, DIMS = "graph", "places.json", "feeds.npz", "dims.json"
"""Beside the candidates' folders, from the first of them: the network and what was put into it."""

_LEAST_PASS = 0.005
"""Seconds that a pass over the requests takes at least: several, where one is too short to time."""


def main(folder: Path) -> int:
    """Do what the candidate's folder says; the exit code."""
    said = _own_stdout()
    os.environ["NNCF_CI"] = "1"  # what it is told otherwise, it tells its makers
    try:
        model = _made(folder, json.loads((folder / JOB).read_bytes()))
        timed = requests.load(folder.parent / "timed.npz", model.signature.by_name)
        _say(said, {"size": _size(folder / MODEL)})
        for _ in sys.stdin:
            _say(said, {"seconds": _timed(model, timed)})
    except NotApplicableError as reason:
        _say(said, {"failed": str(reason)})
    except RequestError as error:
        _say(said, {"failed": error.message})
    except TracklayerError as error:
        _say(said, {"failed": error.message})
    # A library's bug is a line in the table, whatever it raises.
    except Exception as error:  # noqa: BLE001
        _say(said, {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})
    return 0


def _made(folder: Path, job: dict[str, Any]) -> Model:
    """Build and load the candidate, and have it answer."""
    shared, registered = folder.parent, Path(job["registered"])
    patience = job["patience"] or float("inf")
    if job["candidate"] == REGISTERED:
        model = _registered(registered, shared, patience)
        (folder / MODEL).symlink_to(registered)
    else:
        files = folder / "files"
        files.mkdir()
        feeds = requests.load(shared / FEEDS) if (shared / FEEDS).exists() else []
        axes = json.loads((shared / DIMS).read_bytes())
        graph, place = map(Path, json.loads((shared / PLACES).read_bytes()))
        CANDIDATES[job["candidate"]].build(graph, files, feeds, axes)
        assemble(registered, place, files, folder / MODEL)
        shutil.rmtree(files)
        model = load(folder / MODEL)
        if model.signature != load(registered).signature:
            raise NotApplicableError("its inputs and outputs are not those of the model")
    for name in job["sets"]:
        asked = requests.load(shared / f"{name}.npz", model.signature.by_name)
        requests.save(folder / f"{name}.npz", _answers(model, name, asked, patience))
    return model


def _registered(folder: Path, shared: Path, patience: float) -> Model:
    """The registered model; what the other candidates need of it is written down."""
    graph = shared / GRAPH
    graph.mkdir()
    model, network = opened(folder, graph)
    (shared / DIMS).write_text(json.dumps(dims(network.recorder.signature)))
    (shared / PLACES).write_text(json.dumps([str(network.graph), str(network.place)]))
    _record(model, network, shared, patience)
    return model


def _record(model: Model, network: Network, shared: Path, patience: float) -> None:
    if not (file := shared / "calibration.npz").exists():
        return
    kept: list[dict[str, Array]] = []
    network.recorder.feeds = kept
    _answers(model, "calibration", requests.load(file, model.signature.by_name), patience)
    network.recorder.feeds = None
    requests.save(shared / FEEDS, kept)


def _answers(
    model: Model, what: str, asked: Sequence[Mapping[str, Array]], patience: float
) -> list[dict[str, Array]]:
    """What a model answers, until the time is over.

    :param what: name of the set of requests.
    :raises ModelError: it does not answer one.
    """
    names = model.signature.output_names
    answers: list[dict[str, Array]] = []
    begun = time.monotonic()
    for feeds in asked:
        if answers and time.monotonic() - begun > patience:
            break
        try:
            found = model.run(feeds, names, model.call())
        except RequestError as error:
            which = "golden request" if what == "golden" else "held-out data"
            raise ModelError(f"it does not answer the {which}: {error.message}") from error
        answers.append(dict(zip(names, found, strict=True)))
    return answers


def _timed(model: Model, asked: Sequence[Mapping[str, Array]]) -> list[float]:
    taken: list[float] = []
    names, call = model.signature.output_names, model.call()
    while sum(taken) < _LEAST_PASS:
        for feeds in asked:
            start = time.perf_counter()
            model.run(feeds, names, call)
            taken.append(time.perf_counter() - start)
    return taken


def _size(folder: Path) -> int:
    """Bytes of a model folder, held-out data aside."""
    files = (file for file in folder.resolve().rglob("*") if file.name not in FILES)
    return sum(file.stat().st_size for file in files if file.is_file())


def _own_stdout() -> IO[str]:
    """The pipe to who has started this; what libraries print goes to the log instead."""
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return said


def _say(said: IO[str], document: dict[str, Any]) -> None:
    said.write(json.dumps(document) + "\n")
    said.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
