"""The base of all tests of stores: each test gets its own empty store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class StoreSuite:
    """Tests of a store. A subclass makes an empty one."""

    def make_store(self, folder: Path) -> Any:  # noqa: ANN401 - each class of tests names what it needs of a store
        """Return an empty store, which has `close`; its files are below `folder`."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Any]:
        """Provide one empty store for one test."""
        store = self.make_store(tmp_path)
        yield store
        store.close()
