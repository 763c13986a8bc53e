"""Which secrets the platform's own processes get."""

import pytest

from tracklayer.platform.variables import of_store
from tracklayer.settings import Settings


@pytest.mark.parametrize(
    ("location", "variables"),
    [
        (None, []),
        ("none", []),
        ("file:/somewhere/keys", []),
        ("env:MY_KEYS", ["MY_KEYS"]),
        ("airflow:store-keys", ["AIRFLOW_CONN_STORE-KEYS"]),
        ("aws-kms:alias/store?region=eu-west-1", ["AWS_*"]),
        ("vault:transit/store", ["AWS_*", "AZURE_*", "GOOGLE_*", "VAULT_*"]),
    ],
)
def test_what_opening_the_store_takes(location: str | None, variables: list[str]) -> None:
    assert of_store(Settings(store_key=location)) == variables
