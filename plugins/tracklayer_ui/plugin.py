"""The table of what Airflow takes from us."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from tracklayer_airflow import listener


class TracklayerPlugin(AirflowPlugin):
    """Found by Airflow through the entry point ``airflow.plugins``."""

    name = "tracklayer"
    listeners = [listener]  # noqa: RUF012 - as the base class declares it

    # Airflow loads its plugins in every process, but only the web server asks for this: a property
    # in place of the list that the base class declares, so that the others do not build it.
    @cached_property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]
        """The HTTP API under ``/tracklayer``."""
        from tracklayer_ui.api.app import create_app

        return [{"name": "Tracklayer", "app": create_app(), "url_prefix": "/tracklayer"}]
