"""What every key provider promises, as tests: a provider's own tests are a subclass with the fixture `provider`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pdp.broker.providers import KeyProvider, new_kek_id
from pdp.broker.sealing.aead import new_key
from pdp.broker.store.marks import Marks
from pdp.broker.store.rows import BrokerStore
from pdp.broker.vault import Vault
from pdp.broker.words import SealBrokenError, UnknownConnectionError, UnknownKeyError
from tests.broker.vaults import BY, connection

HERE = b"here"
CANARY = b"canary-of-a-secret-4711"


class ProviderContract:
    """The promises of `KeyProvider`."""

    @pytest.fixture
    def kek_id(self, provider: KeyProvider) -> str:
        """Return the id of a new key."""
        kek_id = new_kek_id("acme", "prod")
        provider.create(kek_id)
        return kek_id

    @pytest.fixture
    def vault(self, provider: KeyProvider, tmp_path: Path) -> Iterator[Vault]:
        """Yield a vault over the provider, which stays open."""
        with (
            closing(BrokerStore(tmp_path / "store.sqlite")) as store,
            closing(Marks(tmp_path / "marks.sqlite")) as marks,
        ):
            yield Vault(store=store, marks=marks, provider=provider, observe=lambda _: None, wall=lambda: 1.0)

    def test_a_key_comes_back_as_it_was_wrapped(self, provider: KeyProvider, kek_id: str) -> None:
        """It is not in what was wrapped, which differs each time."""
        provider.check()
        key = new_key()
        once, again = provider.wrap(kek_id, key, HERE), provider.wrap(kek_id, key, HERE)

        assert [key, key] == [provider.unwrap(kek_id, one, HERE) for one in (once, again)]
        assert key not in once
        assert once != again

    def test_a_wrapped_key_opens_nowhere_else(self, provider: KeyProvider, kek_id: str) -> None:
        """Neither with other associated data, nor under another key, nor when a letter of it was changed."""
        other = new_kek_id("acme", "prod")
        provider.create(other)
        wrapped = provider.wrap(kek_id, new_key(), HERE)
        changed = wrapped[:-4] + bytes([wrapped[-4] ^ 1]) + wrapped[-3:]

        for kek, one, associated in (
            (kek_id, wrapped, b"there"),
            (kek_id, wrapped, b""),
            (other, wrapped, HERE),
            (kek_id, changed, HERE),
            (kek_id, wrapped[:5], HERE),
            (kek_id, b"", HERE),
        ):
            with pytest.raises(SealBrokenError):
                provider.unwrap(kek, one, associated)

    def test_a_key_that_is_missing_is_not_made(self, provider: KeyProvider, kek_id: str) -> None:
        """No other key takes its place, and asking twice changes nothing."""
        missing, wrapped = new_kek_id("acme", "prod"), provider.wrap(kek_id, new_key(), HERE)

        for _ in range(2):
            for name in (missing, "../root-1", "kek_x"):
                with pytest.raises(UnknownKeyError):
                    provider.wrap(name, new_key(), HERE)
                with pytest.raises(UnknownKeyError):
                    provider.unwrap(name, wrapped, HERE)

    def test_a_destroyed_key_is_gone(self, provider: KeyProvider, kek_id: str) -> None:
        """Also when it is destroyed again, as after a crash; others stay."""
        other = new_kek_id("acme", "prod")
        provider.create(other)
        key = new_key()
        wrapped, stays = provider.wrap(kek_id, key, HERE), provider.wrap(other, key, HERE)
        for _ in range(2):
            provider.destroy(kek_id)

        with pytest.raises(UnknownKeyError):
            provider.unwrap(kek_id, wrapped, HERE)
        with pytest.raises(UnknownKeyError):
            provider.wrap(kek_id, key, HERE)
        assert key == provider.unwrap(other, stays, HERE)

    def test_threads_share_a_provider(self, provider: KeyProvider, kek_id: str) -> None:
        """As the requests of a broker do."""
        wrong = list[object]()

        def wrap() -> None:
            for _ in range(10):
                key = new_key()
                if provider.unwrap(kek_id, provider.wrap(kek_id, key, HERE), HERE) != key:
                    wrong.append(key)

        threads = [threading.Thread(target=wrap) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [] == wrong

    def test_a_vault_works_with_it(self, vault: Vault) -> None:
        """From the first secret over a rotation to the end of the tenant, which takes no secret of another with it."""
        ours, theirs = (vault.add(connection(id_, tenant=id_), by=BY) for id_ in ("acme", "globex"))
        for one in (ours, theirs):
            vault.put(one.id, b"former", by=BY)
            vault.put(one.id, CANARY, by=BY)
        [(former, _)] = vault.keys(tenant="acme")
        vault.rotate_key("acme", "prod", by=BY)
        moved = vault.rewrap("acme", "prod")
        vault.retire(former.id, by=BY)

        assert 1 == moved
        assert CANARY == vault.open(ours).reveal() == vault.open(theirs).reveal()
        gone = vault.shred("acme", by=BY)
        assert (("acme",), 1) == (gone.connection_ids, len(gone.kek_ids))
        assert CANARY == vault.open(theirs).reveal()
        with pytest.raises(UnknownConnectionError):
            vault.connection("acme")
        vault.shred("globex", by=BY)
