"""What all tests of stores have in common: each gets an empty store of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class StoreSuite:
    """Tests of a store. A subclass says how an empty one is made."""

    def make_store(self, folder: Path) -> Any:  # noqa: ANN401 - each class of tests names what it needs of a store
        """Return an empty store, which has `close`; what it keeps in files, it keeps below `folder`."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Any]:
        """Give one empty store to one test."""
        store = self.make_store(tmp_path)
        yield store
        store.close()
