"""scikit-learn models in skops files: what pickles are made of, and none of their code.

What such a file may name is scikit-learn's own: nobody's code is run. Its numbers are believed, so
that a forged file can end its server, as a forged model of most kinds can.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from tracklayer.errors import ModelError
from tracklayer.formats import recognise_file
from tracklayer.serving.model import DATATYPES, Array, Call, Flag, RequestError, Signature, Tensor
from tracklayer.serving.skops_inputs import Inputs, inputs_of
from tracklayer.serving.tensors import own

log = logging.getLogger(__name__)

_PROBABILITIES = "probabilities"
_ZIP = b"PK\3\4"

_NOT_MODELS = ("sklearn.datasets.", "sklearn.externals.", "sklearn.utils.")
_FUNCTIONS = ("sklearn.cluster.", "sklearn.feature_selection.", "sklearn.metrics.")
"""Where the functions that a model refers to compute, and do nothing else."""
_OTHERS = frozenset({"numpy.dtype", "numpy.mean", "scipy.interpolate._bsplines.BSpline"})


def find(files: Sequence[Path]) -> list[Path]:
    """The skops files among ``files``."""
    return [file for file in files if _is_zip(file) and recognise_file(file).name == "skops"]


def load(path: Path, *, threads: int = 1, inputs: Inputs | None = None) -> SkopsModel:
    """Load an estimator.

    :param inputs: what it takes, where somebody has noted that; else the model is asked.
    :raises ModelError: it is damaged, names types that are not scikit-learn's, or is no estimator
        that predicts.
    """
    from skops import io

    try:
        named = io.get_untrusted_types(file=path)
        refused = sorted(name for name in named if not _is_trusted(name))
        estimator = None if refused else io.load(path, trusted=named)
    # The library raises whatever Python does where a file does not say what it should.
    except Exception as error:
        raise ModelError(
            f"{path.name} cannot be loaded: {_said(error)}",
            hint=f"Write it with the versions that the server has: {_versions()}.",
        ) from error
    if refused:
        more = f" and {len(refused) - 10} more" if len(refused) > 10 else ""
        raise ModelError(
            f"{path.name} names what is not loaded: {', '.join(refused[:10])}{more}",
            hint="Only scikit-learn's own estimators are. Export another model to ONNX, or serve "
            "it with a handler.py.",
        )
    return SkopsModel(path.name, estimator, threads, inputs)


class SkopsModel:
    """An estimator of scikit-learn."""

    platform = "sklearn_skops"

    def __init__(
        self, name: str, estimator: Any, threads: int, inputs: Inputs | None = None
    ) -> None:
        """
        :raises ModelError: it does not predict, or not from what it seems to take.
        """
        from threadpoolctl import ThreadpoolController

        if not callable(getattr(estimator, "predict", None)):
            raise ModelError(
                f"{name} is a {type(estimator).__name__}, which has no predict",
                hint="Save the whole pipeline, down to the estimator that predicts.",
            )
        params = estimator.get_params() if hasattr(estimator, "get_params") else {}
        jobs = {key: threads for key in params if key.rpartition("__")[2] == "n_jobs"}
        if jobs:
            estimator.set_params(**jobs)
        self._estimator = estimator
        self._threads = threads
        self._limited = threading.local()
        self._libraries = ThreadpoolController()
        tensors, self._is_table = inputs or inputs_of(estimator)
        self.signature = Signature(tensors, ())
        self.signature = Signature(tensors, tuple(self._probe(name)))

    def call(self) -> Call:
        """A handle that does nothing: a prediction cannot be ended."""
        return Flag()

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], _call: Call) -> list[Array]:
        """The named outputs; see :class:`tracklayer.serving.model.Model`."""
        rows, results = self._rows(feeds), []
        known = {tensor.name: tensor for tensor in self.signature.outputs}
        count = len(next(iter(feeds.values())))
        for tensor in (known[name] for name in outputs):
            dtype = DATATYPES[tensor.datatype]
            # No estimator takes no row.
            found = self._ask(tensor.name, rows) if count else np.empty((0, *tensor.shape[1:]))
            results.append(found.astype(dtype, copy=False))
        return results

    def _probe(self, name: str) -> Iterator[Tensor]:
        """The outputs, as one row of zeros and examples shows them."""
        row = {}
        for tensor in self.signature.inputs:
            dtype, value = DATATYPES[tensor.datatype], tensor.example
            value = ("" if dtype.kind == "O" else 0) if value is None else value
            row[tensor.name] = np.full([max(1, size) for size in tensor.shape], value, dtype)
        rows = self._rows(row)
        output = "label" if _is_classifier(self._estimator) else "prediction"
        wanted = [output, _PROBABILITIES]
        for output in wanted if hasattr(self._estimator, "predict_proba") else wanted[:1]:
            try:
                found = self._ask(output, rows)
            except RequestError as refused:
                raise ModelError(f"{name} cannot answer: {refused.message}") from refused
            if output == _PROBABILITIES and isinstance(found, list):
                return  # of several labels, each with classes of its own
            datatype = _datatype(found)
            if datatype is None:
                raise ModelError(f"{name}: its {output} is no array of numbers or texts")
            yield Tensor(output, datatype, ("batch", *found.shape[1:]))

    def _ask(self, output: str, rows: Any) -> Any:
        estimator = self._estimator
        method = estimator.predict_proba if output == _PROBABILITIES else estimator.predict
        # OpenMP minds the limit of each thread that calls it.
        if not getattr(self._limited, "done", False):
            self._libraries.limit(limits=self._threads)
            self._limited.done = True
        try:
            return method(rows)
        except (ValueError, TypeError) as error:
            raise RequestError(
                400, f"the model does not take these values: {_said(error)}"
            ) from error
        except Exception as error:
            log.exception("the model failed")
            raise RequestError(
                500, f"the model failed on this request: {type(error).__name__}"
            ) from error

    def _rows(self, feeds: Mapping[str, Array]) -> Any:
        """What estimators take: a matrix, texts, or a table with named columns."""
        if not self._is_table:
            [rows] = feeds.values()
            return own(rows)
        from pandas import DataFrame

        return DataFrame({tensor.name: own(feeds[tensor.name]) for tensor in self.signature.inputs})


def _is_classifier(estimator: Any) -> bool:
    from sklearn.base import is_classifier, is_clusterer, is_outlier_detector

    return any(kind(estimator) for kind in (is_classifier, is_clusterer, is_outlier_detector))


def _datatype(found: Any) -> str | None:
    if not isinstance(found, np.ndarray):
        return None
    if found.dtype.kind in "UO":
        return "BYTES" if all(isinstance(value, str) for value in found.ravel()) else None
    return next((name for name, dtype in DATATYPES.items() if dtype == found.dtype), None)


def _is_trusted(name: str) -> bool:
    """Is it a type of scikit-learn, or a function of it that only computes?

    Looked up in what is imported already: importing runs code.
    """
    if name in _OTHERS:
        return True
    module, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    if not name.startswith("sklearn.") or getattr(found, "__module__", None) != module:
        return False
    if isinstance(found, type):
        return not name.startswith(_NOT_MODELS)
    return isinstance(found, FunctionType) and name.startswith(_FUNCTIONS)


def _is_zip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(_ZIP)) == _ZIP


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


def _versions() -> str:
    from importlib.metadata import version

    return ", ".join(f"{name} {version(name)}" for name in ("scikit-learn", "skops"))
