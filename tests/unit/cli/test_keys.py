from __future__ import annotations

import json

from tracklayer.gateway.routes import Route, save


def test_a_key_is_shown_once(call, own_home):
    code, out, err = call("keys", "create", "alice", "--project", "digits", "--expires", "30d")
    secret = out.strip()
    assert (code, secret[:4], len(secret.split())) == (0, "tlk_", 1)
    assert "not shown again" in err
    assert secret not in (own_home / "gateway" / "keys.json").read_text()
    code, out, _ = call("keys", "ls")
    assert code == 0
    assert out.splitlines()[0].split() == [
        "caller",
        "projects",
        "created",
        "expires",
        "rate",
        "burst",
    ]
    assert out.splitlines()[1].split()[:2] == ["alice", "digits"]
    assert secret not in out


def test_a_project_that_is_not_served_is_said(call, own_home):
    save(own_home / "routes.json", {"digits": Route.of(1, [own_home / "s.sock"])})
    code, _, err = call("keys", "create", "a", "--project", "digits", "--project", "digit")
    assert code == 0
    assert "No project 'digit' is served yet" in err
    assert "'digits'" not in err
    (own_home / "routes.json").write_text("{")
    code, _, err = call("keys", "create", "b", "--project", "digits")
    assert (code, "routes" in err) == (0, False)


def test_as_json(call, own_home):
    code, out, err = call("keys", "create", "bob", "--rate", "100", "--burst", "7", "--json")
    made = json.loads(out)
    assert (code, err) == (0, "")
    assert (made["name"], made["projects"], made["rate"], made["burst"]) == ("bob", "*", 100, 7)
    [listed] = json.loads(call("keys", "ls", "--json")[1])["keys"]
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert json.loads(call("keys", "revoke", "bob", "--json")[1]) == {"revoked": "bob"}
    assert json.loads(call("keys", "ls", "--json")[1]) == {"keys": []}


def test_what_cannot_be_is_said(call, own_home):
    assert call("keys", "revoke", "nobody")[0] == 13
    call("keys", "create", "alice")
    code, _, err = call("keys", "create", "alice")
    assert (code, "tracklayer keys revoke alice" in err) == (13, True)
    assert call("keys", "create", "bob", "--expires", "soon")[0] == 64
    for never in ("0d", "0h", "9999999d"):
        assert call("keys", "create", "bob", "--expires", never)[0] == 64
    assert call("keys", "create", "bob", "--rate", "1", "--burst", str(10**309))[0] == 13
    assert call("keys", "create", "bob", "--burst", "3")[0] == 64
    assert call("keys", "create", "bob", "--rate", "0")[0] == 64
    assert "Nobody" not in call("keys", "ls")[1]
    assert call("keys", "create", "Bob")[0] == 13
