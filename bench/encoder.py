"""An encoder of DistilBERT's size, 128 tokens, one thread: a request of one caller over HTTP.

Beside it, on the same core in turns: a bare onnxruntime session with the same model, the same
network in PyTorch, and the servers that people would pick. Samples are the mean of some seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import orjson

from bench.distilbert import export
from bench.endpoints import TOLERANCE, Array, Server, Task, need_cores, pinned, running
from bench.frameworks import FRAMEWORKS
from bench.measure import OURS, Measure, NotMeasuredError, Options, Row, interleaved, say
from bench.networks import TOKENS, encoder
from bench.peers import python_of
from bench.processes import clean_environment, free_ports, last_lines
from tracklayer.optimize import Budget, Choice, choose, text
from tracklayer.serving.formats import load

_SERVERS = Path(__file__).parent / "servers"
_BARE, _EAGER = "bare onnxruntime session", "PyTorch, eager"
_TEXT, _OPTIMISED = "text", "optimised"
_LIMIT_BARE = 1 / 0.95
_LIMITS_OPTIMISED = {_BARE: 1 / 3.2, _EAGER: 1 / 6}


def run(options: Options) -> list[Row]:
    """The figure.

    :raises NotMeasuredError: there is only one core, or no ``wrk``.
    """
    need_cores()
    pairs = options.pairs or (1 if options.quick else 5)
    with tempfile.TemporaryDirectory(prefix="bench-encoder-") as temporary:
        return _Figure(Path(temporary), quick=options.quick).rows(pairs)


class _Figure:
    """One network in all its forms."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self._folder = folder
        self._seconds = 1 if quick else 3
        self._hub, model = folder / "hub", folder / "model"
        encoder(self._hub, 24 if quick else 120, layers=2 if quick else 6)
        inputs = export(self._hub, model)
        self._task = Task.of(model / "model.onnx", inputs)
        self._request = folder / "request.npz"
        np.savez(self._request, **inputs)

    def rows(self, pairs: int) -> list[Row]:
        choice = self._choose()
        samples, missing = self._samples(choice, pairs)
        what, name = f"{TOKENS} tokens over HTTP", choice.chosen.name
        error = choice.chosen.error
        limits: dict[str, float | None] = {_BARE: _LIMIT_BARE}
        limits |= dict.fromkeys((_EAGER, *FRAMEWORKS))

        def row(side: str, said: str, reference: str, limit: float | None) -> Row:
            return Row(
                what=f"{what}, {said}",
                unit="ms",
                ours=samples.get(side, []),
                name=reference,
                theirs=samples.get(reference, []),
                at_most=limit,
                missing=missing.get(side, "") or missing.get(reference, ""),
            )

        return [
            *(row(OURS, "ONNX as registered", other, limit) for other, limit in limits.items()),
            row(_TEXT, "Hugging Face folder, from the text", _BARE, None),
            *(
                row(_OPTIMISED, f"optimised ({name})", other, limit)
                for other, limit in _LIMITS_OPTIMISED.items()
            ),
            Row(
                what=f"error of what is chosen ({name})",
                unit=f"({choice.chosen.metric})",
                ours=[] if error is None else [error],
                at_most=Budget().error,
            ),
        ]

    def _choose(self) -> Choice:
        """What the optimise step makes of it, by its own budget."""
        work = self._folder / "work"
        work.mkdir()
        choice = choose(self._task.file.parent, work, on_line=say)
        for line in text(choice.rows):
            say(f"  {line}")
        return choice

    def _samples(self, choice: Choice, pairs: int) -> tuple[dict[str, list[float]], dict[str, str]]:
        """Milliseconds of an answer by side, and why a reference has none."""
        with ExitStack() as stack:
            measures: dict[str, Measure] = {}
            lacking: dict[str, str] = {}
            for name, begin in self._sides(choice).items():
                place = Path(tempfile.mkdtemp(dir=self._folder))
                try:
                    measures[name] = stack.enter_context(begin(place))
                except NotMeasuredError as error:
                    if name == OURS:
                        raise
                    lacking[name] = str(error)
            samples, missing = interleaved(pairs, measures, warm=1)
        return samples, lacking | missing

    def _sides(self, choice: Choice) -> dict[str, Side]:
        task, request = self._task, self._request
        optimised = choice.folder or task.file.parent

        def asked(make: Callable[[Path], Server]) -> Side:
            return lambda place: self._served(make, place)

        def alone(make: Callable[[], Sequence[object]]) -> Side:
            return lambda place: self._alone(make(), place)

        return {
            OURS: asked(lambda _: _ours(task.file.parent, task.open_inference, task.expected)),
            _TEXT: asked(lambda _: _ours(self._hub, *self._text())),
            _OPTIMISED: asked(
                lambda _: _ours(optimised, task.open_inference, _answer(optimised, task.inputs))
            ),
            _BARE: alone(lambda: (sys.executable, _SERVERS / "bare.py", task.file, request)),
            _EAGER: alone(
                lambda: (
                    *(python_of("torch"), _SERVERS / "eager.py"),
                    *(self._hub / "model.safetensors", request),
                )
            ),
            **{name: asked(partial(make, task)) for name, make in FRAMEWORKS.items()},
        }

    def _text(self) -> tuple[bytes, Array]:
        """A request with a text of 128 tokens, and the right answer."""
        line = (self._hub / "holdout.jsonl").read_text().splitlines()[0]
        said = json.loads(line)["text"]
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [said]}
        inputs = {"text": np.array([said], dtype=object)}
        return orjson.dumps({"inputs": [tensor]}), _answer(self._hub, inputs)

    @contextmanager
    def _served(self, make: Callable[[Path], Server], place: Path) -> Iterator[Measure]:
        with running(make(place / "server"), place) as up:
            yield lambda: up.one_caller(self._seconds)

    @contextmanager
    def _alone(self, argv: Sequence[object], place: Path) -> Iterator[Measure]:
        """A program that takes turns; see ``servers/turns.py``.

        :raises NotMeasuredError: it ends, or answers wrongly.
        """
        log = place / "program.log"
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                pinned(argv),
                env=clean_environment(),
                cwd=place,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            ) as process,
        ):
            assert process.stdin
            assert process.stdout
            said, asks = process.stdout, process.stdin

            def line() -> str:
                if found := said.readline():
                    return found
                raise NotMeasuredError(f"it ends: {last_lines(log)}")

            def measure() -> float:
                asks.write(f"{self._seconds}\n")
                asks.flush()
                return float(line())

            try:
                if not np.allclose(json.loads(line()), self._task.expected, **TOLERANCE):
                    raise NotMeasuredError("it answers wrongly")
                yield measure
            finally:
                process.kill()


Side = Callable[[Path], AbstractContextManager[Measure]]
"""Brings a side up, and gives how it is measured; the folder is its own."""


def _ours(folder: Path, body: bytes, expected: Array) -> Server:
    (port,) = free_ports(1)
    program = (sys.executable, "-P", "-m", "tracklayer.serving", "--model", str(folder))
    where = ("--name", "m", "--version", "1", "--port", str(port))
    return Server(
        [[*program, *where]], f"http://127.0.0.1:{port}/v2/models/m/infer", body, expected
    )


def _answer(folder: Path, inputs: Mapping[str, Array]) -> Array:
    """What a model gives in this process."""
    model = load(folder)
    names = model.signature.output_names[:1]
    return model.run(inputs, names, model.call())[0].ravel()
