"""The published tests of a session store, one class for each capability of `pdp/sessions/store.py` and for the history.

A whole store runs all of them with one class:

    from pdp.testing.stores.contract import StoreContract

    class TestMyStore(StoreContract):
        def make_store(self, folder: Path) -> SessionStore:
            return MyStore(folder / "sessions")

A store that has one capability implements the methods of its protocol, and runs its class alone:

    from pdp.testing.stores.history import BundleHistoryContract

    class TestMyHistory(BundleHistoryContract):
        def make_store(self, folder: Path) -> BundleHistory:
            return MyHistory(folder / "bundles")

The type of `store` in each test says what the test calls. What is read must first be written, so the tests of sessions
(`reading`, `lists`, `writing`, `settling`, `freezing`) want all of `Sessions`, and those of the high-water mark
(`mark`) a whole store. Those of events (`telling`) want a store, or a history, that was opened to tell.
`contract` adds what capabilities promise together.
"""
