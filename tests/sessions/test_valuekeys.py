"""The key of the values in a tree: the same for a session and all below it, and known only to who has a handle."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pdp.errors import StoreUnavailableError
from pdp.foundation.ids import new_handle
from pdp.model import Session
from pdp.sessions.valuekeys import key_of, sealed_for
from pdp.testing.stores.samples import make_session

ROOT, HANDLES = make_session("root"), tuple(new_handle() for _ in range(3))


def below(parent: Session, parent_handle: str, name: str, handle: str) -> Session:
    """Return a session below another one."""
    child = make_session(name)
    sealed = sealed_for(child.id, handle, key_of(parent, parent_handle))
    return replace(child, parent_id=parent.id, sealed_key=sealed)


def test_a_whole_tree_has_one_key() -> None:
    """It is as long as a key, and another tree has another one."""
    child = below(ROOT, HANDLES[0], "child", HANDLES[1])
    grandchild = below(child, HANDLES[1], "grandchild", HANDLES[2])
    keys = {key_of(one, handle) for one, handle in zip((ROOT, child, grandchild), HANDLES, strict=True)}

    assert [32] == list(map(len, keys))
    assert keys.isdisjoint({key_of(ROOT, new_handle())})


def test_what_is_stored_does_not_hold_the_key() -> None:
    """Each seal is another text, and neither key nor handle is in it."""
    key = key_of(ROOT, HANDLES[0])
    seals = {sealed_for("ses_child", HANDLES[1], key) for _ in range(3)}

    assert 3 == len(seals)
    assert not any(key in one or HANDLES[1].encode() in one for one in seals)


@pytest.mark.parametrize("change", ["handle", "session", "seal", "short"])
def test_a_key_is_sealed_for_one_session(change: str) -> None:
    """Under another handle, in another session, or damaged, it is an error and no other key."""
    child = below(ROOT, HANDLES[0], "child", HANDLES[1])
    if change == "session":
        child = replace(child, id="ses_other")
    if change == "seal":
        child = replace(child, sealed_key=child.sealed_key[:-1] + bytes([child.sealed_key[-1] ^ 1]))
    if change == "short":
        child = replace(child, sealed_key=b"x")

    with pytest.raises(StoreUnavailableError, match="damaged"):
        key_of(child, HANDLES[2] if change == "handle" else HANDLES[1])


def test_a_session_of_an_earlier_release_has_no_key() -> None:
    """Nor have those below it: what their results hold is not known."""
    old = replace(make_session("old"), parent_id=ROOT.id)

    assert b"" == key_of(old, HANDLES[1])
    assert b"" == sealed_for("ses_child", HANDLES[2], b"")
