"""What an estimator of scikit-learn takes, as far as it knows itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tracklayer.errors import ModelError
from tracklayer.serving.model import Tensor

INPUT = "input"
"""The only input of a model that knows no names of columns: FP64 ``[batch, features]``."""

TEXT = "text"
"""The only input of a model that begins with texts: BYTES ``[batch]``."""


class Inputs(NamedTuple):
    """The inputs of an estimator.

    :param table: they are the columns of a table, each ``[batch]``; else there is one, and it is
        given as the array that it is.
    """

    tensors: tuple[Tensor, ...]
    table: bool


def inputs_of(estimator: Any) -> Inputs:
    """The inputs of an estimator that was fitted.

    A model that was fitted on a table takes its columns, by name: FP64, and BYTES where an encoder
    or a vectoriser of texts reads the column. Another takes one matrix.

    :raises ModelError: the model does not know what it takes.
    """
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        columns = [str(name) for name in names]
        known = dict(_known(estimator, columns))
        return Inputs(tuple(_column(name, known.get(name)) for name in columns), table=True)
    if _reads_texts(_first(estimator)):
        return Inputs((Tensor(TEXT, "BYTES", ("batch",)),), table=False)
    count = getattr(estimator, "n_features_in_", None)
    if count is None:
        raise ModelError(
            f"the {type(estimator).__name__} does not say how many features it takes",
            hint="Fit it on a table with named columns, or write a signature: "
            "mlflow.sklearn.save_model(..., input_example=...).",
        )
    return Inputs((Tensor(INPUT, "FP64", ("batch", int(count))),), table=False)


def _first(estimator: Any) -> Any:
    """What gets the data first."""
    steps = getattr(estimator, "steps", None)
    return _first(steps[0][1]) if steps else estimator


def _reads_texts(estimator: Any) -> bool:
    """Is it a CountVectorizer, TfidfVectorizer or HashingVectorizer?"""
    return hasattr(estimator, "build_analyzer")


def _column(name: str, example: Any) -> Tensor:
    if isinstance(example, str):
        return Tensor(name, "BYTES", ("batch",), str(example))
    return Tensor(name, "FP64", ("batch",), None if example is None else float(example))


def _known(estimator: Any, columns: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """A value that the model knows, of the columns that it reads as texts or categories."""
    if _reads_texts(estimator):
        yield from ((name, "text") for name in columns)
    for _, step in getattr(estimator, "steps", None) or ():
        yield from _known(step, columns)
    for _, part, chosen in getattr(estimator, "transformers_", None) or ():
        yield from _known(part, _chosen(chosen, columns))
    categories = getattr(estimator, "categories_", None) or ()
    if len(categories) == len(columns):
        yield from ((n, values[0]) for n, values in zip(columns, categories, strict=True))


def _chosen(chosen: Any, columns: Sequence[str]) -> list[str]:
    """The columns that a part of a ColumnTransformer gets, by name or by number."""
    if isinstance(chosen, slice):
        return list(columns[chosen])
    each = [chosen] if isinstance(chosen, str | int) else list(chosen)
    if each and all(isinstance(one, bool) for one in each):
        return [name for name, taken in zip(columns, each, strict=True) if taken]
    return [one if isinstance(one, str) else columns[one] for one in each]
