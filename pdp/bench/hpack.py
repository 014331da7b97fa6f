"""Header blocks of HTTP/2 (RFC 7541), as far as a load needs them: what it asks is known, what it reads is short.

`RequestHeaders` writes the headers of requests that differ in one value. `read_block` reads what a peer writes to which
a table of size 0 was announced: then equal bytes always mean the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

Field = tuple[str, str]

# Appendix A; the first entry has index 1.
_STATIC: Final[Sequence[Field]] = tuple(
    (name, value)
    for name, _, value in (
        line.partition("=")
        for line in """\
:authority
:method=GET
:method=POST
:path=/
:path=/index.html
:scheme=http
:scheme=https
:status=200
:status=204
:status=206
:status=304
:status=400
:status=404
:status=500
accept-charset
accept-encoding=gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate
""".splitlines()
    )
)
_NAMES: Final = {name: index for index, (name, _) in reversed([*enumerate(_STATIC, start=1)])}
_FIELDS: Final = {field: index for index, field in enumerate(_STATIC, start=1)}

# Appendix B: the length of each byte's code. Codes of one length follow each other, and longer ones follow shorter
# ones, so lengths say all. The last one is that of the end, of which only a beginning may occur.
_LENGTHS: Final = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b0806060605050506"
    "06060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f05060506050606"
    "060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817171717151617"
    "1617171816151416161717151716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a1819"
    "13151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)
_PADDING_BITS: Final = 7

_INDEXED, _REMEMBERED, _SIZE_UPDATE = 0x80, 0x40, 0x20
_HUFFMAN: Final = 0x80
_ENTRY_BYTES: Final = 32


class HeaderError(Exception):
    """A peer's header block is malformed, or uses a table that it was told not to have."""


class RequestHeaders:
    """The header blocks of requests on one connection: the same `fields`, and one whose value varies.

    `varying` has a value of the length that all have. The first block teaches the fields to the peer, whose table has
    `table_size` bytes, and later ones name them by number. To a peer with a smaller table each block has them in full.
    """

    def __init__(self, fields: Sequence[Field], varying: Field, *, table_size: int) -> None:
        name, value = varying
        taught = [*(field for field in fields if not _known(field)), varying]
        length = _integer(len(value), 7)
        if sum(len(one) + len(other) + _ENTRY_BYTES for one, other in taught) <= table_size:
            numbers = {field: len(_STATIC) + age for age, field in enumerate(reversed(taught), start=1)}
            self._first = b"".join(_known(field) or _literal(field, _REMEMBERED) for field in fields)
            self._first += bytes([_REMEMBERED]) + _text(name) + length
            self._later = b"".join(_known(field) or _integer(numbers[field], 7, _INDEXED) for field in fields)
            self._later += _integer(numbers[varying], 4) + length
        else:
            self._later = b"".join(_known(field) or _literal(field) for field in fields)
            self._later += b"\x00" + _text(name) + length
            self._first = _integer(0, 5, _SIZE_UPDATE) + self._later

    def prefix(self) -> bytes:
        """Return the next block up to the bytes of the varying value, with which it ends."""
        prefix, self._first = self._first or self._later, b""
        return prefix


def read_block(block: bytes) -> Mapping[str, str]:
    """Return the fields of a header block, the last of each name. Raise `HeaderError` for what is malformed."""
    try:
        return dict(_read(block))
    except (IndexError, UnicodeDecodeError):
        raise HeaderError("a header block is cut off or is not text") from None


def _read(block: bytes) -> Iterator[Field]:
    at = 0
    while at < len(block):
        first = block[at]
        if first & _INDEXED:
            index, at = _read_integer(block, at, 7)
            yield _static(index)
        elif not first & _REMEMBERED and first & _SIZE_UPDATE:
            size, at = _read_integer(block, at, 5)
            if size:
                raise HeaderError("a header block uses a table that was not offered")
        else:
            index, at = _read_integer(block, at, 6 if first & _REMEMBERED else 4)
            if index:
                name = _static(index)[0]
            else:
                name, at = _read_text(block, at)
            value, at = _read_text(block, at)
            yield name, value


def _static(index: int) -> Field:
    if not 0 < index <= len(_STATIC):
        raise HeaderError(f"a header block names entry {index} of a table that was not offered")
    return _STATIC[index - 1]


def _read_integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    value, at = block[at] & most, at + 1
    shift = 0
    while value >= most:
        byte = block[at]
        value, at, shift = value + ((byte & 0x7F) << shift), at + 1, shift + 7
        if byte < _HUFFMAN:
            break
    return value, at


def _read_text(block: bytes, at: int) -> tuple[str, int]:
    coded = block[at] & _HUFFMAN
    length, at = _read_integer(block, at, 7)
    end = at + length
    if end > len(block):
        raise HeaderError("a header block is cut off")
    return (_uncoded(block[at:end]) if coded else block[at:end]).decode("ascii"), end


def _uncoded(coded: bytes) -> bytes:
    found, code, length = bytearray(), 0, 0
    for byte in coded:
        for shift in range(7, -1, -1):
            code, length = code << 1 | byte >> shift & 1, length + 1
            symbol = _CODES.get((length, code))
            if symbol is not None:
                found.append(symbol)
                code = length = 0
    if length > _PADDING_BITS or code != (1 << length) - 1:
        raise HeaderError("a text of a header block does not end with a whole character")
    return bytes(found)


def _codes() -> Iterator[tuple[tuple[int, int], int]]:
    code, length = 0, 0
    for symbol in sorted(range(len(_LENGTHS)), key=lambda one: (_LENGTHS[one], one)):
        code <<= _LENGTHS[symbol] - length
        length = _LENGTHS[symbol]
        yield (length, code), symbol
        code += 1


_CODES: Final = {key: symbol for key, symbol in _codes() if symbol < len(_LENGTHS) - 1}


def _known(field: Field) -> bytes:
    """Return a field of Appendix A by its number; empty for any other."""
    index = _FIELDS.get(field)
    return _integer(index, 7, _INDEXED) if index is not None and field[1] else b""


def _literal(field: Field, kind: int = 0) -> bytes:
    name, value = field
    index = _NAMES.get(name, 0)
    start = _integer(index, 6 if kind else 4, kind)
    return start + (b"" if index else _text(name)) + _text(value)


def _text(text: str) -> bytes:
    encoded = text.encode("ascii")
    return _integer(len(encoded), 7) + encoded


def _integer(value: int, bits: int, kind: int = 0) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes([kind | value])
    rest = value - most
    found = bytearray([kind | most])
    while rest >= _HUFFMAN:
        found.append(rest & 0x7F | _HUFFMAN)
        rest >>= 7
    found.append(rest)
    return bytes(found)
