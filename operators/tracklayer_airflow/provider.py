"""What Airflow learns of this package by its entry point ``apache_airflow_provider``."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Provider metadata (Airflow's provider schema)."""
    return {
        "package-name": "tracklayer",
        "name": "Tracklayer",
        "description": "From one spec file to a live model endpoint",
        "integrations": [{"integration-name": "Tracklayer", "tags": ["software"]}],
        "bundles": [
            {"integration-name": "Tracklayer", "python-modules": ["tracklayer_airflow.bundle"]}
        ],
        "extra-links": [
            "tracklayer_airflow.links.MlflowRunLink",
            "tracklayer_airflow.links.EndpointLink",
        ],
    }
