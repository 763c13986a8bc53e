"""Projects that follow others: a model that changed, or data that did."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.e2e.conftest import Platform

LEADER = """\
name: leader
template: serve@1
sources: {model: path:model.onnx, data: path:data.csv}
"""
FOLLOWER = "name: {name}\ntemplate: tick@1\nschedule: {{after: [leader/{asset}]}}\n"


def test_what_changed_sets_off_who_waits_for_it(
    platform: Platform, times: Callable[[float], bytes]
) -> None:
    platform.push(
        "leader",
        {"tracklayer.yaml": LEADER, "model.onnx": times(2), "data.csv": "x,y\n1,2\n"},
    )
    platform.push("fan", {"tracklayer.yaml": FOLLOWER.format(name="fan", asset="model")})
    platform.push("reader", {"tracklayer.yaml": FOLLOWER.format(name="reader", asset="data")})
    assert platform.runs("fan") == platform.runs("reader") == []

    def lead(fans: int, readers: int) -> None:
        """Run the leader, and see how often the others have run after it."""
        run = platform.trigger("leader")
        platform.wait("leader", run)
        # Two steps begin it at the same moment: neither is in the other's way.
        tasks = platform.tasks("leader", run)
        assert {name: task["try_number"] for name, task in tasks.items()} == dict.fromkeys(tasks, 1)
        # The model is the last that changes: whoever was set off by the data was so before.
        platform.until(lambda: len(platform.runs("fan")) == fans, "the model is followed")
        for name, count in (("fan", fans), ("reader", readers)):
            found = platform.runs(name)
            assert len(found) == count
            assert {follower["run_type"] for follower in found} == {"asset_triggered"}
            for follower in found:
                platform.wait(name, follower["dag_run_id"])

    lead(fans=1, readers=1)
    lead(fans=2, readers=1)  # the data is what it was
    platform.push("leader", {"data.csv": "x,y\n1,2\n2,4\n"})
    lead(fans=3, readers=2)
