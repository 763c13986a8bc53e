"""Tables, such as CSV and data frames: rows and columns to a model's inputs, and outputs to rows.

A column that is called as an input is that input. Else the only input gets the rows as they are.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tracklayer.serving.model import DATATYPES, Array, RequestError, Signature, Tensor
from tracklayer.serving.tensors import check_finite, decode, shape_of, values

_TABLE = "the table"
_TRUTH = {"true": True, "false": False}

# An image is one cell, and what a body may have is limited elsewhere.
csv.field_size_limit(2**31 - 1)


def feeds_of(
    signature: Signature, columns: Sequence[str] | None, rows: Sequence[Sequence[Any]]
) -> dict[str, Array]:
    """The inputs in rows of cells, which are values or, for inputs with more axes, lists.

    :param columns: names, if there are any.
    :raises RequestError: (400) the table does not fit the model.
    """
    if not rows:
        raise RequestError(400, f"{_TABLE} holds no row")
    _check_rows(len(rows[0] if columns is None else columns), rows)
    if columns is not None:
        _check_columns(columns)
        if tensors := named(signature, columns):
            cells = zip(*rows, strict=True)
            by_column = dict(zip(columns, map(list, cells), strict=True))
            return {
                tensor.name: array_of(tensor, by_column[tensor.name], f"column {tensor.name!r}")
                for tensor in tensors
            }
    tensor = only(signature, rows, _TABLE, columns or ())
    # A model that takes a value a row gets the column.
    flat = len(tensor.dims) == 1 == max(map(len, rows))
    data = [row[0] for row in rows] if flat else list(rows)
    return {tensor.name: array_of(tensor, data, _TABLE)}


def read_csv(signature: Signature, body: bytes) -> dict[str, Array]:
    """The inputs in CSV, whose first line may hold names of columns.

    They are those of inputs; or, where the only input takes no text, words that are no values.

    :raises RequestError: (400) no CSV, or it does not fit the model.
    """
    try:
        lines = list(_lines(body))
    except (UnicodeDecodeError, csv.Error) as error:
        raise RequestError(400, f"the body is not CSV in UTF-8: {error}") from error
    if not lines:
        raise RequestError(400, "the body holds no row")
    first = lines[0][1]
    if named(signature, first):
        names, tensors = first, [signature.by_name[name] for name in first]
    else:
        tensor = only(signature, None, "text/csv", first)
        tensors = [tensor] * len(first)
        words = tensor.datatype != "BYTES" and all(map(_is_word, first))
        names = first if words and len(lines) > 1 else []
    rows = [_row(tensors, names, number, cells) for number, cells in lines[bool(names) :]]
    return feeds_of(signature, names or None, rows)


def rows_of(signature: Signature, results: Sequence[Array]) -> list[Any]:
    """The outputs row by row: the only output's, or objects by the outputs' names.

    :raises RequestError: (406) the outputs have no rows, or not equally many.
    """
    sizes = {array.shape[0] if array.ndim else None for array in results}
    if len(sizes) != 1 or None in sizes:
        raise RequestError(406, "the outputs of this model are no rows; accept application/json")
    lists = {
        tensor.name: _list(values(tensor, array))
        for tensor, array in zip(signature.outputs, results, strict=True)
    }
    if len(lists) == 1:
        return next(iter(lists.values()))
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def write_csv(signature: Signature, results: Sequence[Array]) -> bytes:
    """The outputs as CSV without names: a line a row, with the values of all outputs.

    :raises RequestError: (406) the outputs have no rows, or not equally many.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    for row in rows_of(signature, results):
        writer.writerow(_cells(list(row.values()) if type(row) is dict else row))
    return text.getvalue().encode()


def named(signature: Signature, names: Iterable[str]) -> tuple[Tensor, ...] | None:
    """The inputs, or the one that stands for them, if these are their names."""
    wanted = set(names)
    if signature.instead and wanted == {signature.instead.name}:
        return (signature.instead,)
    return signature.inputs if wanted == {tensor.name for tensor in signature.inputs} else None


def only(signature: Signature, data: object, what: str, columns: Sequence[str] = ()) -> Tensor:
    """The input that data without a name is for: the only one, or what may stand for all.

    :param data: text is for an input that takes text, if there is one.
    :param columns: names that the data has, but not those of the inputs.
    :raises RequestError: (400) there are several.
    """
    candidates = list(signature.inputs) if len(signature.inputs) == 1 else []
    candidates += [signature.instead] if signature.instead else []
    if not candidates:
        known = signature.by_name
        message = f"{what}: the model has several inputs, name them: {', '.join(known)}"
        if columns:
            message += _listed("unknown", [name for name in columns if name not in known])
            message += _listed("missing", [name for name in known if name not in columns])
        raise RequestError(400, message)
    while type(data) is list and data:
        data = data[0]
    texts = [tensor for tensor in candidates if tensor.datatype == "BYTES"]
    return texts[0] if texts and type(data) is str else candidates[0]


def array_of(tensor: Tensor, data: object, field: str) -> Array:
    """The array of nested lists, or of the one value of an input without axes.

    A value a row also suits an input with one column.

    :raises RequestError: (400) it does not fit the input.
    """
    shape = shape_of(data, field)
    if len(shape) == 1 and len(tensor.dims) == 2 and tensor.shape[1] in (1, -1):
        shape = [*shape, 1]
    array = decode(tensor, shape, data if shape else [data], field)
    check_finite(tensor, array, field)
    return array


def _check_columns(columns: Sequence[str]) -> None:
    if len(set(columns)) != len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise RequestError(400, f"column {twice[:100]!r} is there twice")


def _check_rows(columns: int, rows: Sequence[Sequence[Any]]) -> None:
    for number, row in enumerate(rows, 1):
        if len(row) != columns:
            raise RequestError(
                400, f"row {number} has {len(row)} values, there are {columns} columns"
            )


def _listed(what: str, names: Sequence[str]) -> str:
    return f"; {what}: {', '.join(map(repr, names))[:300]}" if names else ""


def _lines(body: bytes) -> Iterator[tuple[int, list[str]]]:
    """The rows of CSV, each with the number of its first line; blank lines are none."""
    # Excel writes a byte order mark.
    reader = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
    number = 1
    for row in reader:
        if row:
            yield number, row
        number = reader.line_num + 1


def _is_word(cell: str) -> bool:
    """Is it a name, and no value of any type nor the lack of one?"""
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() not in {"", *_TRUTH}
    return False


def _row(
    tensors: Sequence[Tensor], names: Sequence[str], number: int, cells: Sequence[str]
) -> list[Any]:
    """The values in a line of CSV."""
    if len(cells) != len(tensors):
        raise RequestError(
            400, f"line {number} has {len(cells)} values, there are {len(tensors)} columns"
        )
    row: list[Any] = []
    for tensor, cell in zip(tensors, cells, strict=True):
        try:
            row.append(_parse(tensor, cell))
        except ValueError:
            column = repr(names[len(row)][:100]) if names else len(row) + 1
            raise RequestError(
                400,
                f"line {number}, column {column}: {cell[:50]!r} is no value of {tensor.datatype}",
            ) from None
    return row


def _parse(tensor: Tensor, cell: str) -> Any:
    kind = DATATYPES[tensor.datatype].kind
    if kind == "O":
        return cell
    if kind == "b":
        if (truth := _TRUTH.get(cell.strip().lower())) is None:
            raise ValueError
        return truth
    # Python's own spelling of numbers is wider than that of any CSV.
    if "_" in cell or not cell.isascii():
        raise ValueError
    return float(cell) if kind == "f" else int(cell)


def _list(data: Any) -> list[Any]:
    found: list[Any] = data if type(data) is list else data.tolist()
    return found


def _cells(row: object) -> list[Any]:
    if type(row) is list:
        return [cell for part in row for cell in _cells(part)]
    return [row]
