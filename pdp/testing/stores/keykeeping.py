"""The contract of the `CallTokenKeys` of a history."""

# ruff: noqa: S101 - a published test suite: it asserts

from __future__ import annotations

from dataclasses import replace

import pytest

from pdp.errors import ConflictError
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.values import PublishedKey
from pdp.sessions.writes import Write
from pdp.testing.stores.suite import StoreSuite


def make_key(name: str, *, published_at: float = 1000.0, ends_at: float = 5000.0) -> PublishedKey:
    """Return the public half of a key."""
    return PublishedKey(id=name, content=name.encode() * 32, published_at=published_at, ends_at=ends_at)


class CallTokenKeysContract(StoreSuite):
    """Keys of call tokens are published until their last token ends, and withdrawn for good."""

    def test_a_published_key_is_found(self, store: SessionHistory) -> None:
        """As it was published, by its id."""
        keys = store.call_token_keys()
        keys.publish(make_key("a"))

        assert (make_key("a"), None) == (keys.get("a"), keys.get("b"))

    def test_keys_are_listed_newest_first_until_they_end(self, store: SessionHistory) -> None:
        """Those with the same time by their ids, and no more than wanted."""
        keys = store.call_token_keys()
        for name, published_at, ends_at in (("a", 1.0, 11.0), ("b", 2.0, 12.0), ("c", 2.0, 12.0), ("d", 3.0, 13.0)):
            keys.publish(make_key(name, published_at=published_at, ends_at=ends_at))

        def listed(wall_at: float, limit: int = 9) -> str:
            return "".join(key.id for key in keys.published(wall_at=wall_at, limit=limit))

        assert (
            listed(10.0),
            listed(11.0),
            listed(12.0),
            listed(13.0),
            listed(5.0, 2),
        ) == ("dcba", "dcb", "d", "", "dc")

    def test_a_withdrawn_key_is_no_longer_listed(self, store: SessionHistory) -> None:
        """It is still found, so that tokens by it are refused for the right reason."""
        keys = store.call_token_keys()
        keys.publish(make_key("a"))
        known = [keys.withdraw(name, wall_at=1000.0) for name in ("a", "a", "b")]

        assert known == [True, True, False]
        assert keys.published(wall_at=1000.0, limit=9) == ()
        assert replace(make_key("a"), withdrawn=True) == keys.get("a")

    def test_a_withdrawal_is_remembered(self, store: SessionHistory) -> None:
        """Under its key, that of a key of call tokens that is there; a second one under it is a conflict."""
        keys, write, other = store.call_token_keys(), *(Write(key=key, digest=b"asked") for key in (b"key", b"other"))
        for name in ("a", "b"):
            keys.publish(make_key(name))
        keys.withdraw("a", wall_at=1000.0, write=write)
        keys.withdraw("c", wall_at=1000.0, write=other)
        with pytest.raises(ConflictError):
            keys.withdraw("b", wall_at=1000.0, write=write)

        assert make_key("b") == keys.get("b")
        assert [store.access().written(one, wall_at=1000.0) for one in (write, other)] == [("a",), None]

    def test_keys_that_have_ended_are_removed(self, store: SessionHistory) -> None:
        """By the next one that is published."""
        keys = store.call_token_keys()
        keys.publish(make_key("a", ends_at=2000.0))
        keys.publish(make_key("b", published_at=2000.0))

        assert (None, make_key("b", published_at=2000.0)) == (keys.get("a"), keys.get("b"))
