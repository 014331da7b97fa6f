"""The provider that keeps keys in files keeps the promises of all providers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pdp.broker.providers import KeyProvider
from pdp.broker.providers.files import FileProvider
from tests.broker.contract import ProviderContract


class TestFileProvider(ProviderContract):
    """The folder of keys of one broker."""

    @pytest.fixture
    def provider(self, tmp_path: Path) -> Iterator[KeyProvider]:
        """Yield a provider with a new root."""
        FileProvider.initialize(tmp_path / "keys")
        with closing(FileProvider(tmp_path / "keys")) as provider:
            yield provider
