from __future__ import annotations

from tracklayer.gateway.haproxy.lanes import lua


def test_values_are_written_as_lua_has_them() -> None:
    value = {
        "closed": True,
        "turns": [{"version": 3, "share": 0.25, "lane": None}, {"version": 4, "share": 0.75}],
        "a-b@3": "text",
        "none": [],
    }
    assert lua(value) == (
        '{["closed"]=true,["turns"]={{["version"]=3,["share"]=0.25},{["version"]=4,["share"]=0.75}},'
        '["a-b@3"]="text",["none"]={}}'
    )
