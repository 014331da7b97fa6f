"""How a program with a file of settings of its own finds the server, and who it is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pdp.foundation.settingsfile import Reader
from pdp.foundation.yamltext import Section

_KEYS: Final = ("address", "token_file", "tls_roots", "tls_certificate", "tls_key", "plaintext")


@dataclass(frozen=True, slots=True, kw_only=True)
class PDPSettings:
    """Where the server is, and the credential of the program there."""

    address: str
    token_file: Path | None
    tls_roots: Path | None
    tls_certificate: Path | None
    tls_key: Path | None
    plaintext: bool

    @property
    def options(self) -> dict[str, Any]:
        """Return the arguments of a client."""
        return {
            "token_file": self.token_file,
            "tls": self.tls_roots or False,
            "tls_certificate": self.tls_certificate,
            "tls_key": self.tls_key,
            "plaintext": self.plaintext,
        }


def pdp_settings(reader: Reader, row: Section) -> PDPSettings:
    """Read the section `pdp` of a file."""
    reader.problems += row.unknown_keys(_KEYS)
    address = reader.take(row, "address", str, "")
    reader.require(row, "address", "must be the address of the server: see `pdp`", good=address)
    token_file, roots, certificate, key = (reader.file(reader.take(row, one, str, "")) for one in _KEYS[1:5])
    return PDPSettings(
        address=address,
        token_file=token_file,
        tls_roots=roots,
        tls_certificate=certificate,
        tls_key=key,
        plaintext=reader.take(row, "plaintext", bool, default=False),
    )
