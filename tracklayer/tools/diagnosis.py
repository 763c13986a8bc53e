"""Terraform's machine-readable output (``-json``): lines for people, and why it failed.

https://developer.hashicorp.com/terraform/internals/machine-readable-ui
The values of sensitive outputs and variables are not in it; those of other outputs are, and are
not passed on either.
"""

from __future__ import annotations

import json
from typing import Any

_LONGEST = 4000


class Diagnosis:
    """Collects what one command says."""

    def __init__(self) -> None:
        self._errors: list[str] = []
        self._plain: list[str] = []

    def read(self, line: str) -> list[str]:
        """The lines for people in one line of output."""
        try:
            event = json.loads(line)
            message = str(event["@message"])
        except (ValueError, KeyError, TypeError):
            self._plain.append(line)
            return [line] if line.strip() else []
        if event.get("type") == "version":
            return []
        found = event.get("diagnostic")
        if isinstance(found, dict):
            message = _text(found)
            if found.get("severity") == "error" and message not in self._errors:
                self._errors.append(message)
        return [text for text in message.splitlines() if text.strip()]

    def __str__(self) -> str:
        """What went wrong: Terraform's own words, or the end of what it said."""
        text = "\n".join(self._errors) or "\n".join(self._plain[-20:]).strip() or "it says nothing"
        return text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."


def _text(found: dict[str, Any]) -> str:
    place = found.get("range") or {}
    where = [str(found["address"])] if found.get("address") else []
    if place:
        where.append(f"{place['filename']} line {place['start']['line']}")
    head = f"{str(found['severity']).capitalize()}: {found['summary']}"
    head += f" ({', '.join(where)})" if where else ""
    detail = str(found.get("detail") or "").strip()
    return f"{head}\n{detail}" if detail else head
