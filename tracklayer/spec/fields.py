"""The types of the spec's fields: how each is written, checked, dumped and described to editors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


def wrong(message: str, hint: str | None = None) -> PydanticCustomError:
    """A validator's complaint; ``message`` follows the name of the field."""
    return PydanticCustomError("spec", "{message}", {"message": message, "hint": hint})


def suggest(word: str, allowed: Iterable[str], *, label: str = "Allowed") -> str:
    """What was meant, if that can be guessed, and what is allowed."""
    known = list(allowed)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    meant = f"Did you mean `{close[0]}`? " if close else ""
    listed = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    return f"{meant}{label}: {listed or 'none'}."


@dataclass(frozen=True, slots=True)
class Matches:
    """Text of a pattern, with words that say what the pattern means."""

    pattern: str
    words: str

    def check(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value):
            raise wrong(f"must be {self.words}")
        return value

    def __get_pydantic_core_schema__(
        self, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.pattern}


_NAME = "^[a-z][a-z0-9-]{0,62}$"
_NAME_WORDS = "1 to 63 lower-case letters, digits and dashes, with a letter first"
Name = Annotated[str, Matches(_NAME, _NAME_WORDS)]
TemplateName = Annotated[
    str,
    Matches(
        "^[a-z][a-z0-9-]{0,62}@[1-9][0-9]{0,3}$",
        "a template's name, an @ and its version, such as train-and-deploy@1",
    ),
]
SourceName = Annotated[
    str,
    Matches(
        "^[a-z][a-z0-9_-]{0,62}$",
        "1 to 63 lower-case letters, digits, dashes and underscores, with a letter first",
    ),
]
Handle = Annotated[
    str,
    Field(max_length=4096),
    Matches(
        "^[a-z][a-z0-9+]*:[^\\x00-\\x1f\\x7f]+$",
        "a source with its scheme, such as path:data/train.csv or https://host/f.zip#sha256=...",
    ),
]
ConnectionId = Annotated[
    str,
    Matches(
        "^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$",
        "the id of an Airflow connection: letters, digits, dots, dashes and underscores",
    ),
]
HyperparameterName = Annotated[
    str,
    Matches(
        "^[A-Za-z][A-Za-z0-9_.-]{0,63}$",
        "1 to 64 letters, digits, dots, dashes and underscores, with a letter first",
    ),
]
OFFLINE = "_offline"
"""Key of a run's configuration, beside hyperparameters: none of those can have this name."""
MetricName = Annotated[
    str,
    Matches(
        "^[A-Za-z_][A-Za-z0-9_./-]{0,127}$",
        "1 to 128 letters, digits, dots, dashes, slashes and underscores, with a letter first",
    ),
]
Script = Annotated[
    str,
    Field(max_length=1024),
    Matches(
        "^[A-Za-z0-9_][A-Za-z0-9_. +-]*(/[A-Za-z0-9_][A-Za-z0-9_. +-]*)*\\.py$",
        "the path of a Python file inside the project, such as train.py or code/train.py",
    ),
]
PythonVersion = Annotated[
    str, Matches("^3\\.[1-9][0-9]?(\\.[0-9]{1,2})?$", 'a Python version in quotes, such as "3.11"')
]
Asset = Annotated[
    str,
    Matches(
        "^[a-z][a-z0-9-]{0,62}/[a-z][a-z0-9_-]{0,62}$",
        "<project>/model or <project>/<name of one of its sources>",
    ),
]

_UNITS = {"B": 1}
_UNITS |= {f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)}
_UNITS |= {f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(B|[KMGT]i?B)")
_LEAST_MEMORY, _MOST_MEMORY = 16 * 1024**2, 64 * 1024**4


def _read_size(value: object) -> int:
    """Bytes of a size such as ``4GiB``, ``512MiB`` or ``2GB``."""
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise wrong("must be a size with its unit, such as 4GiB, 512MiB or 2GB")
    size = round(float(found[1]) * _UNITS[found[2]])
    if not _LEAST_MEMORY <= size <= _MOST_MEMORY:
        raise wrong("must be between 16MiB and 64TiB")
    return size


def _write_size(size: int) -> str:
    """The shortest exact text of a size; the largest unit that divides it."""
    units = sorted(_UNITS.items(), key=lambda item: -item[1])
    return next(f"{size // unit}{name}" for name, unit in units if size % unit == 0)


Memory = Annotated[
    int,
    BeforeValidator(_read_size),
    PlainSerializer(_write_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_SIZE.pattern}$", "examples": ["4GiB"]}),
]

_DURATION = re.compile("(?=.)(?:([0-9]{1,8})h)?(?:([0-9]{1,8})m)?(?:([0-9]{1,8})s)?")
_MOST_SECONDS = 365 * 24 * 3600


def _read_duration(value: object) -> int:
    """Seconds of a duration such as ``1h``, ``30m``, ``90s`` or ``1h30m``."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise wrong("must be a duration with its units, such as 1h, 30m, 90s or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    total = hours * 3600 + minutes * 60 + seconds
    if not 1 <= total <= _MOST_SECONDS:
        raise wrong("must be between 1s and 8760h")
    return total


def _write_duration(seconds: int) -> str:
    parts = seconds // 3600, seconds // 60 % 60, seconds % 60
    return "".join(f"{part}{unit}" for part, unit in zip(parts, "hms", strict=True) if part)


Duration = Annotated[
    int,
    BeforeValidator(_read_duration),
    PlainSerializer(_write_duration, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["1h", "1h30m"]}
    ),
]


def _check_requirement(value: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(value)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        hint = "Write a requirement as pip does: pandas, torch==2.13.0 or scikit-learn>=1.5,<2."
        raise wrong(f"is not a requirement: {reason}", hint) from None
    return value


Requirement = Annotated[str, Field(max_length=1000), AfterValidator(_check_requirement)]


def _check_metric_pattern(value: str) -> str:
    try:
        groups = re.compile(value).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise wrong(f"is not a regular expression: {error}") from None
    if groups != 1:
        hint = "Put the number in brackets: loss=([0-9.]+)"
        raise wrong(f"must have exactly one group, not {groups}", hint)
    return value


MetricPattern = Annotated[str, Field(max_length=500), AfterValidator(_check_metric_pattern)]

PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
# No names for a random or hashed minute (R, H): the same spec must make the same schedule.
_CRON_FIELD = re.compile("[0-9*/,#?-]+|[0-9*/,#?LA-Z-]*[A-Z]{3}[0-9*/,#?LA-Z-]*|L[0-9]?", re.I)


def _check_cron(value: str) -> str:
    if value.startswith("@"):
        if value not in PRESETS:
            raise wrong(f"`{value}` is no preset", suggest(value, PRESETS))
        return value
    hint = f'Write five fields, such as "0 3 * * 1", or one of {", ".join(PRESETS)}.'
    parts = value.split()
    if len(parts) != 5 or not all(map(_CRON_FIELD.fullmatch, parts)):
        raise wrong("must be a cron expression of five fields, or a preset", hint)
    # Airflow reads its schedules with croniter. Imported here: most projects have no cron.
    from croniter import CroniterBadCronError, CroniterBadDateError, croniter

    try:
        croniter(value, datetime(2024, 1, 1, tzinfo=UTC)).get_next()
    except CroniterBadCronError as error:
        raise wrong(f"is not a cron expression: {error}", hint) from None
    except CroniterBadDateError:
        raise wrong("names a day that never comes", hint) from None
    return value


Cron = Annotated[str, Field(max_length=200), AfterValidator(_check_cron)]
