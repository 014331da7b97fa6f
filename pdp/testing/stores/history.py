"""The contract of a `BundleHistory`, as far as it can be tested without sessions."""

# ruff: noqa: S101 - a published test suite: it asserts

from __future__ import annotations

import pytest

from pdp.errors import BundleUnavailableError, ConflictError
from pdp.sessions.store import BundleHistory
from pdp.sessions.values import Expected
from pdp.sessions.writes import Write
from pdp.testing.stores.samples import make_bundle, unchanged
from pdp.testing.stores.suite import StoreSuite


class BundleHistoryContract(StoreSuite):
    """Activations follow one another, and the store remembers the latest ones."""

    @pytest.mark.parametrize(("active", "expected"), [("v1", ""), ("v1", "v0"), ("", "v1")])
    def test_an_activation_that_expects_another_bundle_is_refused(
        self, store: BundleHistory, active: str, expected: str
    ) -> None:
        """A caller that has not seen the active bundle cannot activate another one."""
        if active:
            store.activate_bundle(make_bundle(active), b"one", unchanged)
        before = store.active_bundle()

        with pytest.raises(ConflictError):
            store.activate_bundle(make_bundle("v2"), b"two", unchanged, expected=Expected(version=expected))
        assert (store.active_bundle(), store.bundle_content("v2")) == (before, None)

    def test_an_activation_that_expects_the_active_bundle_is_made(self, store: BundleHistory) -> None:
        """An empty version expects that no bundle is active yet."""
        store.activate_bundle(make_bundle("v1"), b"one", unchanged, expected=Expected(version=""))
        store.activate_bundle(make_bundle("v2"), b"two", unchanged, expected=Expected(version="v1"))

        assert store.active_bundle() == make_bundle("v2")

    def test_an_activation_out_of_turn_is_refused(self, store: BundleHistory) -> None:
        """A turn that the store has never given is not the present one."""
        store.activate_bundle(make_bundle("v1"), b"one", unchanged)

        with pytest.raises(BundleUnavailableError, match="another server follows"):
            store.activate_bundle(make_bundle("v2"), b"", unchanged, expected=Expected(version="v1", turn="earlier"))
        assert store.active_bundle() == make_bundle("v1")

    def test_an_activation_is_remembered(self, store: BundleHistory) -> None:
        """Under its key, with the version before; one that changes nothing is not, and a key is used once."""
        writes = [Write(key=name.encode(), digest=b"asked") for name in ("first", "second", "none")]
        for bundle, write in zip(("v1", "v2", "v2"), writes, strict=True):
            store.activate_bundle(make_bundle(bundle), b"", unchanged, write=write)
        with pytest.raises(ConflictError):
            store.activate_bundle(make_bundle("v3"), b"", unchanged, write=writes[0])

        assert store.active_bundle() == make_bundle("v2")
        assert [store.written(write, wall_at=1000.0) for write in writes] == [("v1",), ("v2", "v1"), None]

    def test_what_is_counted_is_known_since_when(self, store: BundleHistory) -> None:
        """What two bundles in a row count goes on; what one in between does not count begins anew."""
        names: list[tuple[str, ...]] = [("a", "b"), ("b", "c"), (), ("b",)]
        found = []
        for index, counted in enumerate(names):
            activated = make_bundle(
                f"v{index}", activated_at=3000.0 + index, counted=tuple((name, 0.0) for name in counted)
            )
            store.activate_bundle(activated, b"", unchanged)
            active = store.active_bundle()
            found.append(active.counted if active else None)

        assert found == [
            (("a", 3000.0), ("b", 3000.0)),
            (("b", 3000.0), ("c", 3001.0)),
            (),
            (("b", 3003.0),),
        ]

    def test_counting_begins_no_earlier_than_anything_stored(self, store: BundleHistory) -> None:
        """A session that is stored already may be as young as that."""
        store.activate_bundle(make_bundle("v1", activated_at=5000.0), b"", unchanged)
        store.activate_bundle(make_bundle("v2", activated_at=3000.0, counted=(("a", 0.0),)), b"", unchanged)
        store.activate_bundle(make_bundle("v2", activated_at=6000.0, counted=(("a", 0.0),)), b"", unchanged)
        active = store.active_bundle()

        assert active is not None
        assert active.counted == (("a", 5000.0),)

    def test_kept_bundles_are_listed_by_their_latest_activation(self, store: BundleHistory) -> None:
        """The active one is first; one that was activated twice is listed once, at its latest activation."""
        for index, version in enumerate(("v1", "v2", "v3", "v1")):
            store.activate_bundle(make_bundle(version, activated_at=2000.0 - index), b"content", unchanged)

        listed = [(bundle.version, bundle.activated_at) for bundle in store.kept_bundles()]
        assert listed == [("v1", 1997.0), ("v3", 1998.0), ("v2", 1999.0)]

    def test_the_past_outlives_the_content(self, store: BundleHistory) -> None:
        """The history of versions, and the highest number, remain long after the content is gone."""
        never = store.bundle_past("v0")
        for number in range(1000):
            store.activate_bundle(make_bundle(f"v{number}", number=1000 - number), b"", unchanged)

        past = store.bundle_past("v0")
        assert (never.was_active, never.highest_number) == (False, 0)
        assert (past.was_active, past.highest_number) == (True, 1000)
        assert (store.bundle_content("v0"), store.bundle_past("w").was_active) == (None, False)

    def test_the_active_content_is_kept_however_many_follow(self, store: BundleHistory) -> None:
        """A bundle that is activated again after many others keeps its content; the oldest lose theirs."""
        store.activate_bundle(make_bundle("first"), b"first", unchanged)
        for number in range(15):
            store.activate_bundle(make_bundle(f"v{number}"), b"content", unchanged)
        gone = store.bundle_content("first")
        store.activate_bundle(make_bundle("v8"), b"content", unchanged)
        for number in range(9):
            store.activate_bundle(make_bundle(f"w{number}"), b"content", unchanged)

        assert gone is None
        assert (store.bundle_content("v8"), store.bundle_content("w8")) == (b"content", b"content")
