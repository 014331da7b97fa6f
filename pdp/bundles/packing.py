"""Pack a bundle into one file, in one form only: the same content has the same bytes wherever it is packed.

The file is a plain `ustar` archive (POSIX.1-1988), which every `tar` lists and unpacks. Names are sorted; times, owners
and modes are always the same. It is not compressed: the output of a compressor differs between its versions, and an
uncompressed file cannot expand. A reader accepts only this form, without links, devices, long names, duplicates and
paths out of the bundle, and checks every byte of the file.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from pdp.bundles.delivery import Delivery, Signature
from pdp.errors import BundleError, InvalidJSONError, Problem, reason_of
from pdp.foundation.jsontext import canonical, parse_object
from pdp.limits import Limits
from pdp.policy.contents import NAME_BYTES, belongs, most_files, require_sizes

# Not part of the content. Hidden, so that it is not part of it in an unpacked folder either.
SIGNATURE_FILE = ".signature.json"
# Room for any unix time or build counter, within the integers that JSON carries exactly.
HIGHEST_NUMBER = 2**53 - 1

_BLOCK = 512
_END = bytes(2 * _BLOCK)
_NAME, _SIZE = slice(0, NAME_BYTES), slice(124, 135)
_SIGNATURE_BYTES = 64
_SIGNATURE_FILE_BYTES = 1024
_CHECKSUM_PLACE = 148


def pack(files: Mapping[str, bytes], signature: Signature | None = None) -> bytes:
    """Pack the files of a bundle, and its signature if it has one.

    Raise `BundleError` when a file's name does not fit. Sizes and other names are checked where the files are read.
    """
    members = [(name, files[name]) for name in sorted(files)]
    if signature is not None:
        members.insert(0, (SIGNATURE_FILE, _signature_text(signature)))
    return b"".join(_member(name, content) for name, content in members) + _END


def unpack(packed: bytes, limits: Limits) -> Delivery:
    """Return the content of a packed file.

    Raise `BundleError` unless it is, byte for byte, what `pack` returns for a bundle within the limits.
    """
    if len(packed) > packed_bytes(limits):
        raise _refusal(f"larger than {packed_bytes(limits)} bytes (limit `bundle_bytes`)")
    members: dict[str, bytes] = {}
    for name, content in _members(packed):
        if name in members:
            raise _refusal(f"`{name}` appears twice")
        members[name] = content
    text = members.pop(SIGNATURE_FILE, None)
    signature = None if text is None else _signature(text)
    for name in members:
        if not belongs(name) or PurePosixPath(name).as_posix() != name or not name.isprintable():
            raise _refusal(f"`{ascii(name)[1:-1]}` is not a file of a bundle")
    if not members:
        raise _refusal("holds no bundle")
    require_sizes(members, limits)
    # INVARIANT: one content has one form, so that no byte of a signed file can be changed without notice.
    if pack(members, signature) != packed:
        raise _refusal("is not in the form that `pdp bundle build` writes: order, padding or numbers differ")
    return Delivery(files=members, signature=signature)


def read_packed(path: Path, limits: Limits) -> Delivery:
    """Read a packed bundle from a file. Raise `BundleError` when it is unreadable or not a bundle."""
    try:
        with path.open("rb") as stream:
            packed = stream.read(packed_bytes(limits) + 1)
    except OSError as error:
        raise BundleError((Problem(str(path), 0, f"cannot be read: {reason_of(error)}"),)) from None
    try:
        return unpack(packed, limits)
    except BundleError as error:
        # A problem of the file as a whole gets the name of the file.
        raise BundleError(tuple(p if p.file else Problem(str(path), 0, p.message) for p in error.problems)) from None


def packed_bytes(limits: Limits) -> int:
    """Return the size of the largest file that can hold a bundle within the limits."""
    return limits.bundle_bytes + most_files(limits) * 2 * _BLOCK + _SIGNATURE_FILE_BYTES + len(_END)


def _member(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + content + bytes(-len(content) % _BLOCK)


def _header(name: str, size: int) -> bytes:
    header, encoded = bytearray(_BLOCK), name.encode("utf-8")
    if len(encoded) > NAME_BYTES:
        raise BundleError((Problem(name, 0, f"a file's name must be at most {NAME_BYTES} bytes"),))
    fields = (
        (0, encoded),
        (100, b"0000644\0" + b"0000000\0" * 2),  # mode, owner, group
        (124, b"%011o\0" % size + b"00000000000\0"),  # size, time
        (_CHECKSUM_PLACE, b" " * 8),
        (156, b"0"),  # a plain file
        (257, b"ustar\00000"),
        (329, b"0000000\0" * 2),  # device
    )
    for place, field in fields:
        header[place : place + len(field)] = field
    header[_CHECKSUM_PLACE : _CHECKSUM_PLACE + 8] = b"%06o\0 " % sum(header)
    return bytes(header)


def _members(packed: bytes) -> Iterator[tuple[str, bytes]]:
    place = 0
    while packed[place : place + _BLOCK] != bytes(_BLOCK):
        header = packed[place : place + _BLOCK]
        if len(header) < _BLOCK:
            raise _refusal("ends in the middle" if place else "is not a packed bundle; `pdp bundle build` makes one")
        name, size = _read_header(header, place)
        begin = place + _BLOCK
        place = begin + size + -size % _BLOCK
        if place > len(packed):
            raise _refusal(f"ends within `{name}`")
        yield name, packed[begin : begin + size]
    if packed[place:] != _END:
        raise _refusal("does not end directly after its content")


def _read_header(header: bytes, place: int) -> tuple[str, int]:
    try:
        name = header[_NAME].rstrip(b"\0").decode("utf-8")
        size = int(header[_SIZE], 8)
        sound = size >= 0 and header == _header(name, size)
    except ValueError:
        sound = False
    if not sound:
        raise _refusal(
            f"the header at byte {place} is not one that `pdp bundle build` writes"
            if place
            else "is not a packed bundle; `pdp bundle build` makes one"
        )
    return name, size


def _signature_text(signature: Signature) -> bytes:
    value = base64.b64encode(signature.value).decode("ascii")
    return canonical({"key": signature.key_id, "number": signature.number, "value": value})


def _signature(text: bytes) -> Signature:
    if len(text) > _SIGNATURE_FILE_BYTES:
        raise _refusal(f"`{SIGNATURE_FILE}` is too large")
    try:
        found = parse_object(text)
        key_id, number, value = found["key"], found["number"], base64.b64decode(found["value"], validate=True)
    except (InvalidJSONError, KeyError, TypeError, ValueError, binascii.Error):
        raise _refusal(f"`{SIGNATURE_FILE}` holds no signature") from None
    if (
        not isinstance(key_id, str)
        or not key_id.isprintable()
        or type(number) is not int
        or not 1 <= number <= HIGHEST_NUMBER
        or len(value) != _SIGNATURE_BYTES
    ):
        raise _refusal(f"`{SIGNATURE_FILE}` holds no signature")
    return Signature(key_id=key_id, number=number, value=value)


def _refusal(problem: str) -> BundleError:
    return BundleError((Problem("", 0, problem),))
