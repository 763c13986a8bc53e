"""The assets that projects change and follow."""

from __future__ import annotations

from airflow.sdk import Asset


def asset(name: str) -> Asset:
    """``<project>/model``, a model that answers; or ``<project>/<source>``, fetched data."""
    return Asset(name=name, uri=f"tracklayer://{name}")
