from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from airflow.executors.local_executor import LocalExecutor
from airflow.providers.git.bundles.git import GitDagBundle
from airflow.sdk import BaseOperatorLink

from tracklayer_airflow.provider import get_provider_info


def load(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def test_what_the_metadata_names_exists() -> None:
    info = get_provider_info()
    executor = load("tracklayer_airflow.executor.PromptLocalExecutor")
    assert isinstance(executor, type)
    assert issubclass(executor, LocalExecutor)
    links = [load(path) for path in info["extra-links"]]
    assert all(isinstance(link, type) and issubclass(link, BaseOperatorLink) for link in links)
    (bundles,) = info["bundles"]
    (module,) = bundles["python-modules"]
    assert issubclass(import_module(module).ProjectBundle, GitDagBundle)


def test_every_link_of_an_operator_is_in_the_metadata() -> None:
    """Airflow's page shows no link of a class that it was not told of."""
    from tracklayer_airflow.dag import OPERATORS

    listed = {load(path) for path in get_provider_info()["extra-links"]}
    used = {
        type(link)
        for path in OPERATORS.values()
        for link in getattr(load(path.replace(":", ".")), "operator_extra_links", ())
    }
    assert used == listed


def test_airflow_finds_it_where_it_is_installed() -> None:
    found = {point.value: point for point in entry_points(group="apache_airflow_provider")}
    assert found["tracklayer_airflow.provider:get_provider_info"].load() is get_provider_info
