"""The vault: a secret opens where it belongs, in its latest version, with the provider's key, and nowhere else."""

from __future__ import annotations

import itertools
import shutil
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import apsw
import pytest

from pdp.broker.providers import is_key_of, new_kek_id
from pdp.broker.providers.files import FileProvider
from pdp.broker.sealing.aead import new_key
from pdp.broker.sealing.envelope import Place, opened, rewrapped, sealed
from pdp.broker.vault import Vault
from pdp.broker.words import (
    MOST_SECRET_BYTES,
    App,
    ClientAuth,
    Connection,
    ConnectionExistsError,
    Exchange,
    KeyInUseError,
    Mode,
    NoSecretError,
    RolledBackError,
    SealBrokenError,
    TokenSource,
    UnknownConnectionError,
    UnknownKeyError,
)
from pdp.errors import ConfigurationError, ConflictError, InvalidRequestError, PDPError, WrongStateError
from pdp.observer import EventKind
from pdp.testing.waiting import wait_until
from tests.broker.vaults import BY, Files, connection

T = TypeVar("T")
CANARY = b"canary-of-a-secret-4711"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return the files of a broker."""
    return Files(tmp_path / "broker")


@pytest.fixture
def vault(files: Files) -> Iterator[Vault]:
    """Yield an open vault."""
    vault = files.open()
    yield vault
    vault.close()


def kinds(files: Files) -> list[EventKind]:
    """Return what was recorded."""
    return [event.kind for event in files.events]


def test_a_secret_comes_back_as_it_was_put(files: Files, vault: Vault) -> None:
    """Also in another process; versions are counted, and each is recorded."""
    one = vault.add(connection(), by=BY)
    first = vault.put("github", b"first", by=BY)
    second = vault.put("github", CANARY, by=BY)
    other = files.open()

    assert (1, 2) == (first.version, second.version)
    assert CANARY == other.open(one).reveal() == vault.open(one).reveal()
    assert [EventKind.CONNECTION_ADDED, EventKind.SECRET_STORED, EventKind.SECRET_ROTATED] == kinds(files)
    assert ("2", second.digest) == (files.events[-1].facts["version"], files.events[-1].facts["digest"])
    other.close()


@pytest.mark.parametrize("length", [0, MOST_SECRET_BYTES + 1])
def test_a_secret_has_a_length(vault: Vault, length: int) -> None:
    """An empty one is a mistake, and one without a bound would fill the store."""
    vault.add(connection(), by=BY)

    with pytest.raises(InvalidRequestError, match="must have 1 to"):
        vault.put("github", bytes(length), by=BY)


def test_a_connection_without_a_secret_opens_nothing(vault: Vault) -> None:
    """And nothing else is used in its place."""
    one = vault.add(connection(), by=BY)

    with pytest.raises(NoSecretError):
        vault.open(one)


@pytest.mark.parametrize("other", [{"tenant": "globex"}, {"compartment": "test"}], ids=str)
def test_a_connection_of_others_is_unknown(vault: Vault, other: dict[str, str]) -> None:
    """Its error is that of a connection which does not exist."""
    vault.add(connection(), by=BY)
    place = {"tenant": "acme", "compartment": "prod"}

    assert "github" == vault.connection("github", **place).id
    with pytest.raises(UnknownConnectionError, match=r"^no such connection: `github`$"):
        vault.connection("github", **{**place, **other})


def test_a_user_has_a_connection_of_a_kind_before_the_tenant(vault: Vault) -> None:
    """The connection of another user is none, and a kind has one connection for each owner."""
    for id_, owner in (("ours", ""), ("alices", "alice")):
        vault.add(connection(id_, kind="github", owner=owner), by=BY)

    found = [vault.of_kind("acme", "prod", "github", user).id for user in ("alice", "bob")]

    assert ["alices", "ours"] == found
    with pytest.raises(UnknownConnectionError):
        vault.of_kind("globex", "prod", "github", "alice")
    with pytest.raises(ConnectionExistsError):
        vault.add(connection("second", kind="github", owner="alice"), by=BY)


# What a secret is bound to: each with a value that another connection could have.
BOUND: dict[str, object] = {
    "tenant": "globex",
    "compartment": "test",
    "id": "gitlab",
    "kind": "gitlab",
    "upstream": "https://attacker.example.com",
    "owner": "mallory",
    "header": "X-Echo",
    "scheme": "",
    "scopes": ("admin",),
    "modes": (Mode.CHECKOUT,),
    "source": TokenSource(endpoint="https://attacker.example.com/token", client_id="broker"),
}


@pytest.mark.parametrize("changed", [*BOUND, "version"])
def test_a_secret_opens_only_in_its_place(tmp_path: Path, changed: str) -> None:
    """A row that is moved between tenants, compartments, names or versions, or sent elsewhere, does not open."""
    FileProvider.initialize(tmp_path / "keys")
    provider, kek_id = FileProvider(tmp_path / "keys"), new_kek_id("acme", "prod")
    provider.create(kek_id)
    place = Place(connection=connection(), version=2)
    one = sealed(CANARY, place, kek_id, provider)
    other = (
        replace(place, version=1)
        if changed == "version"
        else replace(place, connection=replace(place.connection, **{changed: BOUND[changed]}))  # type: ignore[arg-type]  # fields by name
    )

    assert CANARY == opened(one, place, provider).reveal()
    with pytest.raises(SealBrokenError):
        opened(one, other, provider)
    provider.close()


def test_places_are_never_alike() -> None:
    """Names are not joined, so no two of them can share a text: `a/b` and `c` is not `a` and `b/c`."""
    names = ("a", "a/b", "b/c", "c", '"', "\u00e9", "e\u0301", "")
    places = [
        Place(connection=connection("x", tenant=tenant, compartment=compartment), version=1)
        for tenant, compartment in itertools.product(names, names)
    ]

    assert len(places) == len({one.of_key("kek") for one in places}) == len({one.of_secret() for one in places})


def test_rows_that_were_swapped_open_nothing(files: Files) -> None:
    """Every pair of rows, with and without the file of highest versions: refused, and recorded."""
    ids = ("a", "b", "c", "d")
    vault = files.open()
    places = ({"tenant": "acme"}, {"tenant": "acme", "compartment": "test"}, {"tenant": "globex"}, {"owner": "alice"})
    for id_, place in zip(ids, places, strict=True):
        vault.add(connection(id_, **place), by=BY)
        vault.put(id_, id_.encode(), by=BY)
    vault.close()
    versions = files.keys / "versions.sqlite"
    whole, noted, reasons = files.store.read_bytes(), versions.read_bytes(), set()

    for (one, other), marked in itertools.product(itertools.combinations(ids, 2), (True, False)):
        files.store.write_bytes(whole)
        swap(files.store, one, other)
        versions.write_bytes(noted)
        if not marked:
            versions.unlink()
        vault = files.open()
        for id_ in (one, other):
            with pytest.raises((SealBrokenError, RolledBackError), match=f"the secret of `{id_}` cannot be opened"):
                vault.open(vault.connection(id_))
            reasons.add((marked, files.events[-1].kind, files.events[-1].facts["reason"]))
        rest = {id_: vault.open(vault.connection(id_)).reveal() for id_ in ids if id_ not in (one, other)}
        vault.close()
        assert {id_: id_.encode() for id_ in ids if id_ not in (one, other)} == rest

    refused = EventKind.SECRET_REFUSED
    assert {(True, refused, "rolled_back"), (False, refused, "seal_broken")} == reasons


def swap(store: Path, one: str, other: str) -> None:
    """Give each of two connections the sealed secret of the other, as one who writes the store can."""
    database = apsw.Connection(str(store))
    rows = {id_: database.execute("SELECT * FROM secrets WHERE connection_id = ?", (id_,)).get for id_ in (one, other)}
    database.execute("DELETE FROM secrets WHERE connection_id IN (?, ?)", (one, other))
    for id_, row in ((one, rows[other]), (other, rows[one])):
        database.execute("INSERT INTO secrets VALUES (?, ?, ?, ?, ?, ?)", (id_, *row[1:]))
    database.close()


SOURCE = TokenSource(
    endpoint="https://login.example.com/token",
    client_id="broker",
    resource="https://api.example.com",
    auth=ClientAuth.PRIVATE_KEY,
    audience="https://login.example.com",
    app=App(repositories=("api",)),
    outlives=True,
    exchange=Exchange(audience="crm", resource="https://api.example.com/crm"),
)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE sources SET endpoint = 'https://attacker.example.com/token'",
        "UPDATE sources SET client_id = 'other'",
        "UPDATE sources SET auth = 'client_secret_post'",
        "UPDATE sources SET resource = ''",
        "UPDATE sources SET private = 1",
        "DELETE FROM sources",
        "UPDATE exchanges SET for_audience = 'attacker'",
        "UPDATE exchanges SET for_resource = 'https://attacker.example.com'",
        "DELETE FROM exchanges",
        """UPDATE apps SET repositories_json = '["api", "secret"]'""",
        "DELETE FROM apps",
        "DELETE FROM outliving",
        "UPDATE assertions SET signed_for = 'https://attacker.example.com'",
    ],
)
def test_the_secret_of_a_client_opens_for_its_provider_alone(files: Files, change: str) -> None:
    """Who writes the store can have it sent to no other token endpoint, and not to the upstream."""
    vault = files.open()
    vault.add(connection(source=SOURCE), by=BY)
    vault.put("github", CANARY, by=BY)
    assert SOURCE == vault.connection("github").source
    assert CANARY == vault.open(vault.connection("github")).reveal()
    vault.close()
    database = apsw.Connection(str(files.store))
    database.execute(change)
    database.close()
    vault = files.open()

    with pytest.raises(SealBrokenError):
        vault.open(vault.connection("github"))
    vault.close()


@pytest.mark.parametrize("column", ["upstream", "tenant", "owner", "header"])
def test_a_connection_that_was_changed_in_the_store_opens_nothing(files: Files, column: str) -> None:
    """Who writes the store cannot have a secret sent elsewhere."""
    vault = files.open()
    vault.add(connection(), by=BY)
    vault.put("github", CANARY, by=BY)
    vault.close()
    database = apsw.Connection(str(files.store))
    database.execute(f"UPDATE connections SET {column} = 'https://attacker.example.com'")  # noqa: S608 - a word above
    database.close()
    vault = files.open()

    with pytest.raises(SealBrokenError):
        vault.open(vault.connection("github"))
    vault.close()


def test_a_changed_byte_opens_nothing(files: Files) -> None:
    """Neither of the secret nor of its key."""
    vault = files.open()
    one = vault.add(connection(), by=BY)
    vault.put("github", CANARY, by=BY)
    vault.close()
    (files.keys / "versions.sqlite").unlink()
    database = apsw.Connection(str(files.store))
    wrapped, text = database.execute("SELECT wrapped_key, sealed FROM secrets").get
    database.close()

    for column, value in (("wrapped_key", wrapped), ("sealed", text)):
        for place in (0, len(value) // 2, len(value) - 1):
            database = apsw.Connection(str(files.store))
            changed = value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]
            database.execute("UPDATE secrets SET wrapped_key = ?, sealed = ?", (wrapped, text))
            database.execute(f"UPDATE secrets SET {column} = ?", (changed,))  # noqa: S608 - a word above
            database.close()
            vault = files.open()
            with pytest.raises(SealBrokenError):
                vault.open(one)
            vault.close()


def test_a_stolen_store_opens_nothing_without_its_root(files: Files, tmp_path: Path) -> None:
    """A copy of the store, and even of the wrapped keys, is nothing with another root."""
    vault = files.open()
    one = vault.add(connection(), by=BY)
    vault.put("github", CANARY, by=BY)
    vault.close()
    thief = files.copy(tmp_path / "stolen")
    for root in thief.keys.glob("root-*"):
        root.unlink()

    with pytest.raises(UnknownKeyError):
        with_vault(thief, lambda vault: vault.open(one))
    shutil.rmtree(thief.keys)
    with pytest.raises(UnknownKeyError, match="the provider has no key"):
        with_vault(thief, lambda vault: vault.open(one))


def with_vault(files: Files, use: Callable[[Vault], T]) -> T:
    """Open a vault, use it, and close it."""
    vault = files.open()
    try:
        return use(vault)
    finally:
        vault.close()


def test_an_older_store_is_noticed(files: Files) -> None:
    """A version below the highest is refused and recorded, until the secret is put again: versions never come twice."""
    vault = files.open()
    one = vault.add(connection(), by=BY)
    vault.put("github", b"leaked", by=BY)
    vault.close()
    former = files.store.read_bytes()
    with_vault(files, lambda vault: vault.put("github", b"second", by=BY))

    files.store.write_bytes(former)
    with pytest.raises(RolledBackError, match="the store has version 1, and had version 2"):
        with_vault(files, lambda vault: vault.open(one))
    assert (EventKind.SECRET_REFUSED, "rolled_back") == (files.events[-1].kind, files.events[-1].facts["reason"])

    assert 3 == with_vault(files, lambda vault: vault.put("github", b"third", by=BY)).version
    assert b"third" == with_vault(files, lambda vault: vault.open(one)).reveal()


def test_a_removed_connection_does_not_come_back(files: Files) -> None:
    """Neither with an older store, nor by one of the same name."""
    vault = files.open()
    one = vault.add(connection(), by=BY)
    vault.put("github", CANARY, by=BY)
    vault.remove("github", by=BY)
    again = vault.add(connection(), by=BY)

    with pytest.raises(RolledBackError):
        vault.open(again)
    assert 2 == vault.put("github", b"new", by=BY).version
    assert b"new" == vault.open(one).reveal()
    vault.close()


def test_a_version_that_was_not_noted_is_noted_when_it_is_opened(files: Files) -> None:
    """A process that dies between the two files loses neither the secret nor the protection."""
    vault = files.open()
    one = vault.add(connection(), by=BY)
    vault.put("github", b"first", by=BY)
    vault.close()
    noted = (files.keys / "versions.sqlite").read_bytes()
    first = files.store.read_bytes()
    with_vault(files, lambda vault: vault.put("github", b"second", by=BY))
    (files.keys / "versions.sqlite").write_bytes(noted)

    assert b"second" == with_vault(files, lambda vault: vault.open(one)).reveal()
    files.store.write_bytes(first)
    with pytest.raises(RolledBackError):
        with_vault(files, lambda vault: vault.open(one))


def test_a_key_is_rotated_without_a_pause(files: Files, vault: Vault) -> None:
    """Secrets open before, while and after they are brought to the new key; the old one goes when nothing names it."""
    ones = [vault.add(connection(f"c{number}"), by=BY) for number in range(20)]
    for one in ones:
        vault.put(one.id, one.id.encode(), by=BY)
    [(former, count)] = vault.keys()
    other, stop, opened_by_others = files.open(), threading.Event(), list[bool]()

    def reader() -> None:
        while not stop.is_set():
            opened_by_others.extend(other.open(one).reveal() == one.id.encode() for one in ones)

    thread = threading.Thread(target=reader)
    thread.start()
    wait_until(lambda: bool(opened_by_others))
    new = vault.rotate_key("acme", "prod", by=BY)
    vault.put("c0", b"c0", by=BY)
    with pytest.raises(KeyInUseError):
        vault.retire(former.id, by=BY)
    moved = vault.rewrap("acme", "prod")
    vault.retire(former.id, by=BY)
    before = len(opened_by_others)
    wait_until(lambda: len(opened_by_others) >= before + 2 * len(ones) or not thread.is_alive())
    stop.set()
    thread.join()

    assert (20, 19) == (count, moved)
    assert ((new, 20),) == vault.keys()
    assert len(opened_by_others) > before
    assert all(opened_by_others)
    assert all(vault.open(one).reveal() == one.id.encode() for one in ones)
    assert not (files.keys / f"{former.id}.kek").exists()
    assert [EventKind.KEY_ROTATED, EventKind.KEY_RETIRED] == [kind for kind in kinds(files) if "key." in kind]
    other.close()


def test_a_secret_opens_whose_key_is_retired_meanwhile(
    files: Files, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading and opening it can be brought to another key: that is no sign of a changed store."""
    one = vault.add(connection(), by=BY)
    vault.put("github", CANARY, by=BY)
    [(former, _)] = vault.keys()
    unwrap = FileProvider.unwrap

    def unwrap_late(provider: FileProvider, kek_id: str, wrapped: bytes, associated: bytes) -> bytes:
        monkeypatch.undo()
        vault.rotate_key("acme", "prod", by=BY)
        vault.rewrap("acme", "prod")
        vault.retire(former.id, by=BY)
        return unwrap(provider, kek_id, wrapped, associated)

    monkeypatch.setattr(FileProvider, "unwrap", unwrap_late)

    assert CANARY == vault.open(one).reveal()
    assert EventKind.SECRET_REFUSED not in kinds(files)


def test_a_secret_is_not_stored_under_a_key_that_goes(files: Files, vault: Vault) -> None:
    """Between sealing and storing a key can be retired: then the secret is refused rather than lost."""
    one = vault.add(connection(), by=BY)
    vault.put("github", b"first", by=BY)
    vault.rotate_key("acme", "prod", by=BY)
    vault.rewrap("acme", "prod")
    other = files.open()
    wrap = FileProvider.wrap

    def wrap_late(provider: FileProvider, kek_id: str, key: bytes, associated: bytes) -> bytes:
        wrapped = wrap(provider, kek_id, key, associated)
        other.rotate_key("acme", "prod", by=BY)
        other.rewrap("acme", "prod")
        other.retire(kek_id, by=BY)
        return wrapped

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(vault._provider, "wrap", wrap_late.__get__(vault._provider))
        with pytest.raises(ConflictError):
            vault.put("github", b"second", by=BY)

    assert b"first" == vault.open(one).reveal()
    other.close()


def test_a_key_of_another_tenant_is_not_used(files: Files) -> None:
    """Who writes the store cannot have a tenant's secrets sealed under a key that outlives the tenant."""
    vault = files.open()
    for id_, tenant in (("ours", "acme"), ("theirs", "globex")):
        vault.add(connection(id_, tenant=tenant), by=BY)
        vault.put(id_, CANARY, by=BY)
    vault.close()
    database = apsw.Connection(str(files.store))
    database.execute("DELETE FROM secrets WHERE connection_id = 'ours'; DELETE FROM keks WHERE tenant = 'acme'")
    database.execute("UPDATE keks SET tenant = 'acme'")
    database.close()

    with pytest.raises(UnknownKeyError, match="the store was changed"):
        with_vault(files, lambda vault: vault.put("ours", CANARY, by=BY))


def test_the_id_of_a_key_says_whose_it_is() -> None:
    """For exactly one tenant and compartment."""
    kek_id = new_kek_id("acme", "prod")

    assert is_key_of(kek_id, "acme", "prod")
    assert not any(is_key_of(kek_id, *other) for other in (("acme", "test"), ("globex", "prod"), ("acmeprod", "")))
    assert kek_id != new_kek_id("acme", "prod")


def test_a_shredded_tenant_opens_nowhere(files: Files, tmp_path: Path) -> None:
    """Nor from a backup of the store, nor from one of the keys once the root was replaced; others keep theirs."""
    vault = files.open()
    one = vault.add(connection("ours"), by=BY)
    other = vault.add(connection("theirs", tenant="globex"), by=BY)
    for id_ in ("ours", "theirs"):
        vault.put(id_, CANARY, by=BY)
    kek_ids = [kek.id for kek, _ in vault.keys(tenant="acme")]
    vault.close()
    backup = files.copy(tmp_path / "backup")

    gone = with_vault(files, lambda vault: vault.shred("acme", by=BY))
    provider = FileProvider(files.keys)
    provider.replace_root()
    provider.close()

    assert (("ours",), tuple(kek_ids)) == gone
    assert EventKind.TENANT_SHREDDED == files.events[-1].kind
    assert CANARY == with_vault(files, lambda vault: vault.open(other)).reveal()
    with pytest.raises(UnknownConnectionError):
        with_vault(files, lambda vault: vault.connection("ours"))
    # The store comes back, and then the wrapped keys too: the root that opens them exists no more.
    shutil.copy(backup.store, files.store)
    with pytest.raises(UnknownKeyError, match="the provider has no key"):
        with_vault(files, lambda vault: vault.open(one))
    for kek_id in kek_ids:
        shutil.copy(backup.keys / f"{kek_id}.kek", files.keys)
    with pytest.raises(UnknownKeyError, match="the root that wraps"):
        with_vault(files, lambda vault: vault.open(one))


def test_shredding_leaves_nothing_in_the_files(files: Files, vault: Vault) -> None:
    """No sealed secret and no wrapped key stays in a free page or in the log, while others use the store."""
    vault.add(connection(), by=BY)
    vault.put("github", CANARY, by=BY)
    other = files.open()
    stored = vault._store.stored("github")
    assert stored is not None
    pieces = (stored.sealed.text, stored.sealed.wrapped_key)
    before = b"".join(path.read_bytes() for path in files.store.parent.iterdir())

    vault.shred("acme", by=BY)

    after = b"".join(path.read_bytes() for path in files.store.parent.iterdir())
    assert [True, True] == [piece in before for piece in pieces]
    assert [False, False] == [piece in after for piece in pieces]
    other.close()


def test_a_person_is_forgotten_in_the_files(files: Files, vault: Vault) -> None:
    """Their connections go with their secrets, also from free pages; those of others stay, and nobody is recorded."""
    for name, owner in (("github", "ada"), ("gitlab", "bob"), ("crm", "")):
        vault.add(connection(name, owner=owner), by=BY)
        vault.put(name, CANARY, by=BY)
    stored = vault._store.stored("github")
    assert stored is not None

    gone = vault.forget("ada", tenant="acme", by=BY)

    after = b"".join(path.read_bytes() for path in files.store.parent.iterdir())
    assert (("github",), ["crm", "gitlab"]) == (gone, [one.id for one in vault.connections()])
    assert (False, False) == (stored.sealed.text in after, b"ada" in after)
    assert (EventKind.PERSON_FORGOTTEN, "") == (files.events[-1].kind, files.events[-1].user)


def test_a_root_is_not_replaced_while_another_process_uses_it(files: Files, vault: Vault) -> None:
    """It could wrap a new key by the root that goes."""
    provider = FileProvider(files.keys)

    with pytest.raises(WrongStateError, match="stop the broker first"):
        provider.replace_root()
    vault.check()
    provider.close()


def test_an_interrupted_replacement_of_the_root_is_made_again(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was done, each secret opens before, in between and afterwards."""
    vault = files.open()
    ones = [vault.add(connection(f"c{number}", compartment=f"p{number}"), by=BY) for number in range(3)]
    for one in ones:
        vault.put(one.id, CANARY, by=BY)
    vault.close()
    calls = itertools.count()
    wrapped = FileProvider._wrapped

    def dying(provider: FileProvider, kek_id: str, key: bytes) -> bytes:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return wrapped(provider, kek_id, key)

    def replace_root() -> None:
        provider = FileProvider(files.keys)
        try:
            provider.replace_root()
        finally:
            provider.close()

    monkeypatch.setattr(FileProvider, "_wrapped", dying)
    with pytest.raises(KeyboardInterrupt):
        replace_root()
    assert [CANARY] * 3 == with_vault(files, lambda vault: [vault.open(one).reveal() for one in ones])
    replace_root()

    assert [CANARY] * 3 == with_vault(files, lambda vault: [vault.open(one).reveal() for one in ones])
    assert 1 == len(list(files.keys.glob("root-*")))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: root.chmod(0o644), "others can read"),
        (lambda root: root.write_bytes(new_key()), "does not hold the root key that it is named after"),
        (lambda root: root.write_bytes(b"short"), "does not hold the root key"),
        (lambda root: root.unlink(), "there is no root key"),
        (lambda root: root.parent.chmod(0o777), "others can write"),
    ],
)
def test_a_root_that_is_not_ours_alone_is_refused(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    """The provider starts only with a root that nobody else can read or choose."""
    FileProvider.initialize(tmp_path / "keys")
    [root] = (tmp_path / "keys").glob("root-*")
    spoil(root)

    with pytest.raises(ConfigurationError, match=message):
        FileProvider(tmp_path / "keys")


def test_only_their_owner_reads_the_files(files: Files, vault: Vault) -> None:
    """Of the store, its log and the keys."""
    vault.add(connection(), by=BY)
    vault.put("github", CANARY, by=BY)

    modes = {path.stat().st_mode & 0o777 for path in files.folder.rglob("*") if path.is_file()}
    assert {0o600} == modes
    assert {0o700} == {path.stat().st_mode & 0o777 for path in (files.store.parent, files.keys)}


def test_no_secret_is_in_a_file_an_event_or_an_error(files: Files, vault: Vault) -> None:
    """Whatever was done with it, and whatever went wrong."""
    one = vault.add(connection(), by=BY)
    vault.put("github", CANARY, by=BY)
    vault.rotate_key("acme", "prod", by=BY)
    vault.rewrap("acme", "prod")
    errors = []
    for deed in refusals(vault, files, one):
        with pytest.raises(PDPError) as refused:
            deed()
        errors.append("".join(traceback.TracebackException.from_exception(refused.value, capture_locals=True).format()))

    held = b"".join(path.read_bytes() for path in files.folder.rglob("*") if path.is_file())
    assert CANARY not in held
    assert CANARY.decode() not in f"{files.events} {errors}"


def refusals(vault: Vault, files: Files, one: Connection) -> Iterator[Callable[[], object]]:
    """Yield what fails with a secret at hand."""
    yield lambda: vault.open(replace(one, tenant="globex"))
    stored = vault._store.stored("github")
    assert stored is not None
    yield lambda: rewrapped(stored.sealed, Place(connection=one, version=9), stored.sealed.kek_id, vault._provider)
    (files.keys / f"{vault.keys()[-1][0].id}.kek").unlink()
    yield lambda: vault.open(one)


def test_one_of_two_processes_that_store_at_once_is_told(files: Files, vault: Vault) -> None:
    """All that were stored have versions of their own, and the last one is opened."""
    one = vault.add(connection(), by=BY)
    vaults, versions = [files.open() for _ in range(4)], list[int]()

    def put(vault: Vault, number: int) -> None:
        for turn in range(5):
            try:
                versions.append(vault.put("github", f"{number}-{turn}".encode(), by=BY).version)
            except ConflictError:
                continue

    threads = [threading.Thread(target=put, args=(each, number)) for number, each in enumerate(vaults)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(versions) == list(range(1, len(versions) + 1))
    assert len(versions) == vault.connection("github").version
    assert 1 == len(vault.keys())
    assert vault.open(one).reveal()
    for each in vaults:
        each.close()
