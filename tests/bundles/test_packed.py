"""Packed bundles: one form for one content, and nothing else is read."""

from __future__ import annotations

import gzip
import io
import os
import random
import re
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import pdp
from pdp.bundles.delivery import Delivery
from pdp.bundles.packing import SIGNATURE_FILE, pack, packed_bytes, read_packed, unpack
from pdp.bundles.signing import Trust, generate_key, read_public_keys, sign
from pdp.errors import BundleError, ConfigurationError
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.contents import read_folder, require_sizes, version_of
from pdp.testing.bundles import bundle_files, tool

FILES = bundle_files(
    policies={"files": '@id("files/all") permit (principal, action, resource);', "größe": "// nothing yet\n"},
    tools={"files": [tool("read")], "git": [tool("log")]},
    overlays={"git": "tools: {log: {risk: read_only}}"},
    directory="users: {alice: {}}\nagents: {worker: {ceiling: ['files/*']}}",
)
SMALL = {"bundle.yaml": b"name: small\n", "schema.cedarschema": b"entity User;\n"}


@pytest.fixture(scope="module")
def keys() -> tuple[bytes, bytes]:
    """Return a private and a public key."""
    return generate_key()


@pytest.fixture
def trust(keys: tuple[bytes, bytes]) -> Trust:
    """Return the trust in that key alone."""
    return Trust(keys=read_public_keys(keys[1]), required=True)


def write(folder: Path, files: Mapping[str, bytes], *, order: int, mode: int, time: int) -> Path:
    """Write a bundle in some order, with modes and times of its own."""
    names = sorted(files)
    random.Random(order).shuffle(names)  # noqa: S311 - an order, not a secret
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[name])
        path.chmod(mode)
        os.utime(path, (time, time))
    return folder


def test_equal_folders_have_equal_bytes(tmp_path: Path) -> None:
    """Names of folders, order of writing, modes, times and what is no part of the bundle do not matter."""
    first = write(tmp_path / "a", FILES, order=1, mode=0o644, time=1)
    second = write(tmp_path / "deep" / "b", FILES, order=2, mode=0o700, time=2_000_000_000)
    (second / "README.md").write_text("notes", encoding="utf-8")
    (second / ".git").mkdir()

    packed = [pack(read_folder(folder, DEFAULT_LIMITS)) for folder in (first, second)]

    assert packed[0] == packed[1]


def test_packing_loses_nothing() -> None:
    """What comes out is what went in, under the version that the folder has."""
    files = {**FILES, "empty.cedar": b"", "full.cedar": bytes(range(256)) * 2}

    delivery = unpack(pack(files), DEFAULT_LIMITS)

    assert files == delivery.files
    assert version_of(files) == delivery.version
    assert delivery.signature is None


def test_signature_is_packed_with_the_content(keys: tuple[bytes, bytes], trust: Trust) -> None:
    """A signed file has the version of the unsigned one, and says who signed it with which number."""
    signed = sign(Delivery(files=FILES), keys[0], 42)

    read = unpack(pack(signed.files, signed.signature), DEFAULT_LIMITS)

    assert signed == read
    assert (version_of(FILES), 42) == (read.version, read.signature.number if read.signature else 0)
    assert next(iter(trust.keys)) == trust.verify(read).signed_by


def test_signing_twice_gives_the_same_bytes(keys: tuple[bytes, bytes]) -> None:
    """A signature adds nothing that differs from time to time, and replaces one that is there."""
    once = sign(Delivery(files=FILES), keys[0], 42)
    twice = sign(sign(Delivery(files=FILES), keys[0], 41), keys[0], 42)

    assert pack(once.files, once.signature) == pack(twice.files, twice.signature)


@pytest.mark.parametrize("bit", [0x01, 0x20, 0x80])
def test_one_changed_byte_anywhere_fails(keys: tuple[bytes, bytes], trust: Trust, bit: int) -> None:
    """At every position of a signed file a change is noticed, in whatever is not content too."""
    signed = sign(Delivery(files=SMALL), keys[0], 42)
    packed = bytearray(pack(signed.files, signed.signature))
    assert trust.verify(unpack(bytes(packed), DEFAULT_LIMITS)).signed_by
    unnoticed = []

    for place in range(len(packed)):
        packed[place] ^= bit
        if verifies(bytes(packed), trust):
            unnoticed.append(place)
        packed[place] ^= bit

    assert [] == unnoticed


@pytest.mark.parametrize("bit", [0x01, 0x80])
def test_one_changed_byte_of_an_unsigned_file_is_another_version(bit: int) -> None:
    """Without a signature the version tells: no other bytes are read as the same bundle."""
    packed = bytearray(pack(SMALL))
    same = []

    for place in range(len(packed)):
        packed[place] ^= bit
        try:
            if unpack(bytes(packed), DEFAULT_LIMITS).version == version_of(SMALL):
                same.append(place)
        except BundleError:
            pass
        packed[place] ^= bit

    assert [] == same


@pytest.mark.parametrize(
    "change", [lambda packed: packed[:-1], lambda packed: packed + b"\0", lambda packed: packed[512:]]
)
def test_other_lengths_fail(keys: tuple[bytes, bytes], trust: Trust, change: Callable[[bytes], bytes]) -> None:
    """A byte less, a byte more, or the signature cut off."""
    signed = sign(Delivery(files=SMALL), keys[0], 42)

    assert not verifies(change(pack(signed.files, signed.signature)), trust)


def test_every_shortened_file_is_refused() -> None:
    """A file that was not written to its end is no bundle, wherever it ends."""
    packed = pack(SMALL)

    for length in range(len(packed)):
        with pytest.raises(BundleError):
            unpack(packed[:length], DEFAULT_LIMITS)


def verifies(packed: bytes, trust: Trust) -> bool:
    """Say whether a file is taken as signed by a trusted key."""
    try:
        return bool(trust.verify(unpack(packed, DEFAULT_LIMITS)).signed_by)
    except BundleError:
        return False


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """Write an archive with Python's own writer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def member(name: str, content: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """Return one member of an archive."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


@pytest.mark.parametrize(
    ("packed", "problem"),
    [
        pytest.param(b"", "not a packed bundle", id="empty"),
        pytest.param(b"PK\3\4" + bytes(2000), "not a packed bundle", id="zip"),
        pytest.param(gzip.compress(pack(SMALL)), "not a packed bundle", id="compressed"),
        pytest.param(bytes(1024), "holds no bundle", id="nothing"),
        pytest.param(
            tar(member("bundle.yaml", type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0)), "not a packed", id="link"
        ),
        pytest.param(
            tar(member("bundle.yaml", type=tarfile.LNKTYPE, linkname="a", size=0)), "not a packed", id="hard link"
        ),
        pytest.param(tar(member("tools", b"", type=tarfile.DIRTYPE)), "not a packed bundle", id="folder"),
        pytest.param(tar(member("bundle.yaml", mtime=1)), "not a packed bundle", id="time"),
        pytest.param(tar(member("bundle.yaml", mode=0o755)), "not a packed bundle", id="mode"),
        pytest.param(tar(member("bundle.yaml", uid=1000)), "not a packed bundle", id="owner"),
        pytest.param(tar(member("a" * 120 + ".cedar"), form=tarfile.GNU_FORMAT), "not a packed bundle", id="long name"),
        pytest.param(tar(member("ä.cedar"), form=tarfile.PAX_FORMAT), "not a packed bundle", id="pax"),
        pytest.param(pack({"../bundle.yaml": b""}), "`../bundle.yaml` is not a file of a bundle", id="outside"),
        pytest.param(pack({"/etc/a.cedar": b""}), "`/etc/a.cedar` is not a file of a bundle", id="absolute"),
        pytest.param(pack({"./bundle.yaml": b""}), "`./bundle.yaml` is not a file of a bundle", id="dot"),
        pytest.param(pack({"tools//git.json": b""}), "`tools//git.json` is not a file of a bundle", id="two slashes"),
        pytest.param(pack({"tools/../bundle.yaml": b""}), "is not a file of a bundle", id="up"),
        pytest.param(pack({"tools/a/git.json": b""}), "is not a file of a bundle", id="deeper"),
        pytest.param(pack({"README.md": b""}), "`README.md` is not a file of a bundle", id="notes"),
        pytest.param(pack({"a\nb.cedar": b""}), r"`a\\nb.cedar` is not a file of a bundle", id="newline"),
        pytest.param(pack({"a": b""})[:512] * 2 + bytes(1024), "`a` appears twice", id="twice"),
        pytest.param(pack({"b.cedar": b""})[:512] + pack({"a.cedar": b""}), "not in the form .*: order", id="order"),
        pytest.param(pack({"a.cedar": b"x"})[:-1024] + bytes(10240), "does not end directly after", id="padding"),
        pytest.param(pack({SIGNATURE_FILE: b"{}", **SMALL}), "holds no signature", id="empty signature"),
        pytest.param(
            pack({SIGNATURE_FILE: b'{"key":"a","number":1.5,"value":"' + b"A" * 86 + b'=="}', **SMALL}),
            "holds no signature",
            id="broken number",
        ),
        pytest.param(
            pack({SIGNATURE_FILE: b'{"key":"a","number":1,"value":"' + b"A" * 85 + b'B=="}', **SMALL}),
            "not in the form",
            id="second spelling",
        ),
        pytest.param(
            pack({SIGNATURE_FILE: b'{"key": "a","number":1,"value":"' + b"A" * 86 + b'=="}', **SMALL}),
            "not in the form",
            id="blank in signature",
        ),
    ],
)
def test_nothing_else_is_read(packed: bytes, problem: str) -> None:
    """Links, folders, other writers' files, paths that lead elsewhere, duplicates: none of it is a packed bundle."""
    with pytest.raises(BundleError, match=problem):
        unpack(packed, DEFAULT_LIMITS)


def test_sizes_are_limited_before_anything_is_read(tmp_path: Path) -> None:
    """A file that is too large is not read to its end, and one that claims to be is not believed."""
    limits = replace(DEFAULT_LIMITS, bundle_bytes=100_000, policy_file_bytes=1000)
    large = tmp_path / "large.bundle"
    with large.open("wb") as stream:
        stream.truncate(10**12)  # takes no room on the disk
    claim = bytearray(pack({"a.cedar": b"x"}))
    claim[124:135] = b"77777777777"

    with pytest.raises(BundleError, match=rf"large.bundle: larger than {packed_bytes(limits)} bytes"):
        read_packed(large, limits)
    with pytest.raises(BundleError, match="not a packed bundle"):
        unpack(bytes(claim), limits)
    with pytest.raises(BundleError, match=r"a.cedar: larger than 1000 bytes"):
        unpack(pack({"a.cedar": bytes(1001)}), limits)
    with pytest.raises(BundleError, match="more than 64 files"):
        unpack(pack({f"a{number}.cedar": b"" for number in range(65)}), limits)


def test_largest_bundle_can_be_packed() -> None:
    """Whatever a folder may hold fits into the largest file that is read."""
    limits = replace(DEFAULT_LIMITS, bundle_bytes=100_000)
    files = {f"a{number:02}.cedar": b"x" * 1562 for number in range(64)}

    assert len(files) == len(unpack(pack(files), limits).files)


def test_every_tar_unpacks_it(tmp_path: Path) -> None:
    """The file is a plain archive; unpacked into a folder it is the same bundle, signed or not."""
    signed = sign(Delivery(files=FILES), generate_key()[0], 1)
    (tmp_path / "b.tar").write_bytes(pack(signed.files, signed.signature))
    folder = tmp_path / "out"
    folder.mkdir()

    subprocess.run(["tar", "-xf", tmp_path / "b.tar", "-C", folder], check=True, timeout=60)

    assert FILES == read_folder(folder, DEFAULT_LIMITS)


def test_name_that_does_not_fit_is_refused_in_a_folder_too() -> None:
    """What cannot be packed does not load from a folder either."""
    files = {**FILES, "a" * 95 + ".cedar": b""}

    for deed in (lambda: pack(files), lambda: require_sizes(files, DEFAULT_LIMITS)):
        with pytest.raises(BundleError, match="at most 100 bytes"):
            deed()


# Signatures


def test_unsigned_is_refused_where_a_signature_is_asked_for(trust: Trust) -> None:
    """The message says how to mend it."""
    with pytest.raises(BundleError, match=r"not signed, but only signed ones are taken; see `pdp bundle sign`"):
        trust.verify(Delivery(files=SMALL))


def test_signature_of_somebody_else_is_refused(trust: Trust) -> None:
    """The message names the key."""
    stranger = sign(Delivery(files=SMALL), generate_key()[0], 1)
    assert stranger.signature is not None

    with pytest.raises(BundleError, match=rf"`{stranger.signature.key_id}`, which is not among the trusted keys"):
        trust.verify(stranger)


@pytest.mark.parametrize("change", ["files", "number", "key"])
def test_signature_does_not_move(keys: tuple[bytes, bytes], trust: Trust, change: str) -> None:
    """A signature is for one content, one number and one key."""
    signed = sign(Delivery(files=SMALL), keys[0], 7)
    other = sign(Delivery(files={**SMALL, "a.cedar": b""}), generate_key()[0], 8)
    assert signed.signature is not None
    assert other.signature is not None
    moved = {
        "files": Delivery(files=other.files, signature=signed.signature),
        "number": Delivery(files=SMALL, signature=replace(signed.signature, number=8)),
        "key": Delivery(files=other.files, signature=replace(other.signature, key_id=signed.signature.key_id)),
    }

    with pytest.raises(BundleError, match=r"the signature by `ed25519:.*` is wrong"):
        trust.verify(moved[change])


def test_only_a_verified_bundle_can_run() -> None:
    """`Trust.verify` alone makes what is verified, and only the loader what can be kept and activated."""
    package = Path(pdp.__file__).parent
    made = {
        (name, path.relative_to(package).as_posix())
        for path in package.rglob("*.py")
        for name in re.findall(r"\b(Verified|Loaded)\(", path.read_text(encoding="utf-8"))
    }

    assert {("Verified", "bundles/signing.py"), ("Loaded", "bundles/loading.py")} == made


def test_without_trusted_keys_a_signature_says_nothing(keys: tuple[bytes, bytes]) -> None:
    """Nobody is believed to have signed what nobody could verify."""
    assert not Trust().verify(sign(Delivery(files=SMALL), keys[0], 7)).signed_by


def test_several_keys_are_trusted_during_a_change_of_keys(keys: tuple[bytes, bytes]) -> None:
    """A file may hold more than one public key."""
    other = generate_key()
    trust = Trust(keys=read_public_keys(keys[1] + b"the new one:\n" + other[1]), required=True)

    signers = {trust.verify(sign(Delivery(files=SMALL), private, 7)).signed_by for private in (keys[0], other[0])}

    assert set(trust.keys) == signers


@pytest.mark.parametrize("pem", [b"", b"hello", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
def test_other_public_keys_are_refused(pem: bytes) -> None:
    """A file without a key that can sign bundles is a mistake of whoever set it."""
    with pytest.raises(ConfigurationError, match="holds"):
        read_public_keys(pem)


def test_public_key_does_not_sign(keys: tuple[bytes, bytes]) -> None:
    """Who mixes up the two files is told so."""
    with pytest.raises(ConfigurationError, match="not an Ed25519 private key"):
        sign(Delivery(files=SMALL), keys[1], 1)
