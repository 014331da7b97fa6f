"""Files are believed only from the right hands: owner and mode of the file, and of all that leads to it."""

from __future__ import annotations

import json
import os
import pwd
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from joserfc.jwk import OKPKey

from pdp.app.record import record_key
from pdp.bundlesettings import trust_of
from pdp.callersettings import keys_of_file, tls_files_of
from pdp.cli.operate.init import prepare
from pdp.config.reading import load
from pdp.config.settings import JWTSettings, PolicySettings, Settings
from pdp.errors import ConfigurationError
from pdp.foundation.ownership import read_own, require_own
from pdp.foundation.webfile import WebEndpoint, WebFile, WebFileError
from pdp.identity.callers import KnownCallers
from pdp.identity.denied import DenyList
from pdp.record.keys import SigningKey
from pdp.serving.certificates import ServerCertificates, TLSFiles
from pdp.testing.clock import FakeClock
from tests.machinery.credentials.authority import Authority

NOBODY = 65534
SERVER = 65532
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def _owned(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def _writable(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def _group(path: Path) -> None:
    os.chown(path, 0, NOBODY)
    path.chmod(path.stat().st_mode | 0o020)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file in two folders."""
    place = tmp_path / "upper" / "lower"
    place.mkdir(parents=True)
    (place / "file").write_text("content")
    return place / "file"


@pytest.mark.parametrize("spoil", [_owned, _writable, _group])
@pytest.mark.parametrize("above", [0, 1, 2])
def test_others_must_not_reach_it(file: Path, spoil: Callable[[Path], None], above: int) -> None:
    """Neither the file nor a folder above it may be another user's, or open to one; the message names which it is."""
    place = [file, *file.parents][above]
    assert b"content" == read_own(file, "harm")

    spoil(place)

    with pytest.raises(ConfigurationError, match=f"`{place}`") as caught:
        read_own(file, "harm")
    assert (f"on the way to `{file}`: harm" in str(caught.value)) == bool(above)


def test_a_sticky_folder_is_safe_for_what_is_ours(file: Path) -> None:
    """In a folder such as `/tmp` each entry stays its owner's."""
    file.parent.chmod(0o1777)

    assert b"content" == read_own(file, "harm")

    _owned(file)
    with pytest.raises(ConfigurationError, match="belongs to nobody"):
        read_own(file, "harm")


def test_a_link_of_another_user_is_not_followed(file: Path) -> None:
    """What somebody put into a sticky folder leads nowhere, though what it leads to is ours."""
    file.parent.chmod(0o1777)
    link = file.with_name("link")
    link.symlink_to(file)
    assert b"content" == read_own(link, "harm")

    os.lchown(link, NOBODY, NOBODY)

    with pytest.raises(ConfigurationError, match="link` belongs to nobody"):
        read_own(link, "harm")


def test_where_a_link_leads_counts_too(file: Path) -> None:
    """A link of ours into a folder that others may write to is no way."""
    link = file.parents[2] / "link"
    link.symlink_to("upper/lower")
    assert b"content" == read_own(link / "file", "harm")
    assert b"content" == read_own(link / ".." / "lower" / "file", "harm")

    _writable(file.parents[1])

    with pytest.raises(ConfigurationError, match=r"others can write to `.*/upper`, on the way to `.*/link/file`"):
        read_own(link / "file", "harm")


def test_links_in_a_circle_are_an_error(tmp_path: Path) -> None:
    """A path without an end is one that cannot be read."""
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")

    with pytest.raises(ConfigurationError, match="cannot read"):
        read_own(tmp_path / "one", "harm")


@contextmanager
def _as_server() -> Iterator[None]:
    os.setegid(SERVER)
    os.seteuid(SERVER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def mount() -> Iterator[Path]:
    """Return a folder that every user can enter."""
    with tempfile.TemporaryDirectory(prefix="pdp-mount-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_secret_of_kubernetes_is_believed(mount: Path) -> None:
    """The server is not root; the mount is root's, sticky, with links to a dated folder, and has the group of the pod.

    This is what the platform makes of a secret with `defaultMode: 0400` and `fsGroup`.
    """
    dated = mount / "..2026_11_26_15_00_00.1"
    dated.mkdir()
    (dated / "callers.yaml").write_text("a: b")
    (mount / "..data").symlink_to(dated.name)
    (mount / "callers.yaml").symlink_to("..data/callers.yaml")
    for path, mode in ((mount, 0o3777), (dated, 0o2755), (dated / "callers.yaml", 0o440)):
        os.chown(path, 0, SERVER)
        path.chmod(mode)

    with _as_server():
        assert b"a: b" == read_own(mount / "callers.yaml", "harm")


def test_a_volume_with_the_group_of_the_pod_is_believed(mount: Path) -> None:
    """A volume is its root's with `fsGroup`, writable for that group, which nobody but the server is in."""
    os.chown(mount, 0, SERVER)
    mount.chmod(0o2775)
    with _as_server():
        (mount / "data").mkdir(mode=0o700)
        require_own(mount / "data", "harm")

    os.chown(mount, 0, NOBODY)
    with _as_server(), pytest.raises(ConfigurationError, match="others can write to"):
        require_own(mount / "data", "harm")


def test_a_group_of_the_user_s_own_may_write_but_for_an_access_list(mount: Path) -> None:
    """Most systems give each user a group, and let it write; a list of others hides behind the same bits."""
    (mount / "file").write_text("content")
    (mount / "file").chmod(0o664)
    assert b"content" == read_own(mount / "file", "harm")

    # Version 2; the owner, the user 65534, the group, the mask and all others, each with rights and id.
    entries = ((1, 6, -1), (2, 6, NOBODY), (4, 6, -1), (16, 6, -1), (32, 4, -1))
    listed = b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(mount / "file", "system.posix_acl_access", struct.pack("<I", 2) + listed)
    except OSError:
        pytest.skip("this file system keeps no access lists")

    with pytest.raises(ConfigurationError, match="others can write to"):
        read_own(mount / "file", "harm")


def test_a_group_that_another_user_begins_with_is_not_alone(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of groups does not name those whose own group it is in the list of users; they may write all the same.

    The list of users is the machine's, so it is the one thing here that is not real.
    """
    path = mount / "file"
    path.write_text("content")
    path.chmod(0o664)
    root = pwd.getpwuid(0)
    guest = pwd.struct_passwd(("guest", "x", SERVER, root.pw_gid, "", "/", "/bin/sh"))
    sync = pwd.struct_passwd(("sync", "x", 5, root.pw_gid, "", "/", "/bin/sync"))
    monkeypatch.setattr(pwd, "getpwall", lambda: [root, sync])
    assert b"content" == read_own(path, "harm")

    monkeypatch.setattr(pwd, "getpwall", lambda: [root, sync, guest])

    with pytest.raises(ConfigurationError, match="others can write to"):
        read_own(path, "harm")


# What is believed, and what reads it.


def _data(tmp_path: Path) -> Settings:
    settings = Settings(data_dir=str(tmp_path / "data"))
    prepare(settings)
    return settings


def _callers(tmp_path: Path) -> tuple[Path, Callable[[], object]]:
    settings = _data(tmp_path)
    return settings.callers_file, lambda: KnownCallers(settings.callers_file)


def _reloaded_callers(tmp_path: Path) -> tuple[Path, Callable[[], object]]:
    settings = _data(tmp_path)
    return settings.callers_file, KnownCallers(settings.callers_file).reload


def _denied(tmp_path: Path) -> tuple[Path, Callable[[], object]]:
    path = tmp_path / "denied.yaml"
    path.write_text("callers: []\n")
    return path, lambda: DenyList(path)


def _jwt_keys(tmp_path: Path) -> tuple[Path, Callable[[], object]]:
    path = tmp_path / "keys.json"
    key = OKPKey.generate_key("Ed25519", {"kid": "first"})
    path.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    return path, lambda: keys_of_file(JWTSettings(keys_file=str(path)), FakeClock())


def _settings(tmp_path: Path) -> tuple[Path, Callable[[], object]]:
    path = tmp_path / "pdp.yaml"
    path.write_text("data_dir: data\n")
    return path, lambda: load(environ={}, file=path)


def _tls_key(tmp_path: Path) -> tuple[Path, Callable[[], object]]:
    files = tls_files_of(_data(tmp_path))
    assert files is not None
    return files.key, ServerCertificates(files).credentials


def _tls_roots(tmp_path: Path) -> tuple[Path, Callable[[], object]]:
    files = Authority().files(tmp_path)
    assert files.client_roots is not None
    return files.client_roots, ServerCertificates(files).credentials


def _certificate(tmp_path: Path) -> tuple[Path, Callable[[], object]]:
    files: TLSFiles = Authority().files(tmp_path)
    return files.certificate, ServerCertificates(files).credentials


def _signing_key(tmp_path: Path) -> tuple[Path, Callable[[], object]]:
    path = _data(tmp_path).record_signing_key
    return path, lambda: SigningKey.load(path)


def _digest_key(tmp_path: Path) -> tuple[Path, Callable[[], object]]:
    settings = _data(tmp_path)
    return settings.record_digest_key, lambda: record_key(settings)


def _public_keys(tmp_path: Path) -> tuple[Path, Callable[[], object]]:
    path = tmp_path / "release.key.pub"
    path.write_bytes(SigningKey.generate().public.pem)
    return path, lambda: trust_of(Settings(policies=PolicySettings(public_keys=str(path))))


def _data_folder(tmp_path: Path) -> tuple[Path, Callable[[], object]]:
    settings = _data(tmp_path)
    return Path(settings.data_dir), lambda: prepare(settings)


READERS = (
    _callers, _reloaded_callers, _denied, _jwt_keys, _settings, _tls_key, _tls_roots, _certificate, _signing_key,
    _digest_key, _public_keys, _data_folder,
)  # fmt: skip


@pytest.mark.parametrize("spoil", [_owned, _writable])
@pytest.mark.parametrize("reader", READERS)
def test_what_the_server_believes_is_its_own(
    tmp_path: Path, reader: Callable[[Path], tuple[Path, Callable[[], object]]], spoil: Callable[[Path], None]
) -> None:
    """Each file that says who may call, what is signed, or what the server is: another user's is refused by name."""
    path, read = reader(tmp_path)
    read()

    spoil(path)

    with pytest.raises(ConfigurationError, match=f"`{path}`"):
        read()


@pytest.mark.parametrize("setting", ["token_file", "ca_file"])
def test_what_a_fetch_believes_is_its_own(tmp_path: Path, setting: str) -> None:
    """A token to present, and who may answer: neither is taken from another user, and nothing is asked."""
    path = tmp_path / "given"
    path.write_text("a-token")
    _owned(path)
    place = WebEndpoint(**{"url": "https://127.0.0.1:1/bundle", setting: str(path)})

    with pytest.raises(WebFileError, match=r"is not fetched: `.*given` belongs to nobody"):
        WebFile(place, 100).fetch()


def test_settings_of_a_folder_that_others_write_to_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pdp.yaml` of the working directory could send an approver's token elsewhere: the message names file and why."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "pdp.yaml").write_text("server: {address: '127.0.0.1:6666'}\n")
    monkeypatch.chdir(tmp_path / "open")
    assert "127.0.0.1:6666" == load(environ={}).server.address

    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ConfigurationError) as caught:
        load(environ={})

    assert str(caught.value) == (
        f"the configuration file: others can write to `{tmp_path}/open`, on the way to `pdp.yaml`: anyone could choose "
        "the server that tokens go to; `chmod go-w` it"
    )
