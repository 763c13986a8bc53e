"""Where a problem is shown."""

from tracklayer.spec.positions import Positions, dotted

KNOWN = Positions("f", {(): (1, 1), ("a",): (1, 4), ("a", "b"): (2, 6)}, {("a",): (1, 1)})


def test_value_key_parent_and_nothing() -> None:
    assert KNOWN.place(("a",)) == (1, 4)
    assert KNOWN.place(("a",), key=True) == (1, 1)
    assert KNOWN.place(("a", "b", "c")) == (2, 6)
    assert KNOWN.place(("a", "x")) == (1, 1)
    assert KNOWN.place(("z",)) == (1, 1)
    assert Positions().place(("z",)) == (1, 1)
    assert str(KNOWN.problem(("a", "b"), "is wrong", "mend it")) == "f:2:6: is wrong\n  mend it"


def test_where_a_thing_was_written_is_no_part_of_what_it_says() -> None:
    assert Positions() == KNOWN


def test_a_path_as_people_write_it() -> None:
    assert dotted(("packages", "requirements", 0)) == "packages.requirements[0]"
    assert dotted(()) == ""
