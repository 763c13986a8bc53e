"""What is made of hosts for Ansible, and of Ansible's events for people."""

from __future__ import annotations

from typing import Any

from tracklayer.targets import Host
from tracklayer.tools.ansible import _Events, _inventory, _passed


def host(address: str, **more: Any) -> Host:
    given = {"python": "/usr/bin/python3", "accelerators": [], "hourly_cost": 0.0, **more}
    return Host(address=address, **given)


def test_the_inventory() -> None:
    made = _inventory(
        [host("10.0.0.1", user="ubuntu", port=2222), host("127.0.0.1", connection="local")],
        {"token": "x"},
    )
    assert made["all"]["vars"] == {"token": "x"}
    assert made["all"]["hosts"]["10.0.0.1"] == {
        "ansible_host": "10.0.0.1",
        "ansible_port": 2222,
        "ansible_connection": "ssh",
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_user": "ubuntu",
    }
    assert made["all"]["hosts"]["127.0.0.1"]["ansible_connection"] == "local"
    assert "ansible_user" not in made["all"]["hosts"]["127.0.0.1"]


def test_only_what_ansible_needs_of_the_environment() -> None:
    assert all(map(_passed, ["PATH", "HOME", "SSH_AUTH_SOCK", "ANSIBLE_FORKS", "LC_ALL"]))
    assert not any(map(_passed, ["AWS_SECRET_ACCESS_KEY", "AIRFLOW__CORE__FERNET_KEY", "MY_PATH"]))


def failure(kind: str, task: str, **result: Any) -> dict[str, Any]:
    data = {"host": "h1", "task": task, "res": result}
    return {"event": kind, "event_data": data, "stdout": f"fatal: {task}\n\n"}


def test_failures_name_host_task_and_reason() -> None:
    said: list[str] = []
    events = _Events(said.append)
    events(failure("runner_on_failed", "one", msg="non-zero return code", stderr="why\n"))
    ignored = failure("runner_on_failed", "ignored", msg="never mind")
    ignored["event_data"]["ignore_errors"] = True
    events(ignored)
    events(failure("runner_on_unreachable", "two", msg="refused"))
    items = [{"failed": True, "msg": "bad item"}, {"failed": False, "msg": "good item"}]
    events(failure("runner_on_failed", "three", msg="Some items failed", results=items))
    events(failure("runner_on_failed", "four", censored="hidden by no_log", msg="hunter2"))
    assert events.failures == [
        "h1, task 'one': non-zero return code\nwhy",
        "h1 cannot be reached, task 'two': refused",
        "h1, task 'three': Some items failed\nbad item",
        "h1, task 'four': hidden by no_log",
    ]
    assert said == ["fatal: one", "fatal: ignored", "fatal: two", "fatal: three", "fatal: four"]


def test_the_result_counts_over_all_hosts() -> None:
    events = _Events(lambda _line: None)
    stats = {"ok": {"a": 3, "b": 2}, "changed": {"a": 1}, "dark": {"c": 1}}
    data = {**stats, "failures": {"b": 1}, "processed": {"a": 1, "b": 1, "c": 1}}
    events({"event": "playbook_on_stats", "event_data": data})
    result = events.result()
    assert (result.ok, result.changed, result.failed) == (5, 1, 2)
    assert result.hosts["b"] == {"ok": 2, "changed": 0, "failed": 1, "unreachable": 0}
    assert result.hosts["c"]["unreachable"] == 1
