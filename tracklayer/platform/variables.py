"""Which variables that hold secrets the platform's own processes get; user code gets none."""

from __future__ import annotations

from tracklayer.settings import Settings

CONNECTIONS = "AIRFLOW_CONN_*"


def of_store(here: Settings) -> list[str]:
    """What opening the store takes, as patterns such as ``AWS_*``.

    A key provider of somebody else's may need what nobody here knows of: it gets the variables of
    the larger key services.
    """
    kind, _, rest = here.store_key_location.partition(":")
    known = {
        "file": [],
        "none": [],
        "env": [rest],
        "airflow": [f"AIRFLOW_CONN_{rest.upper()}"],
        "aws-kms": ["AWS_*"],
    }
    return known.get(kind, ["AWS_*", "AZURE_*", "GOOGLE_*", "VAULT_*"])
