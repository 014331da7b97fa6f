"""Check the server's certificate and key and the callers' authorities: readable, matching, in force, with names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from pdp.doctor.finding import Deployment, Finding, fine, problem, warning
from pdp.errors import reason_of
from pdp.serving.localtls import AUTHORITY_FILE, CERTIFICATE_FILE, TLS_FOLDER

_CHECK: Final = "tls"
_SOON_SECONDS: Final = 14 * 86400.0


def certificate(deployment: Deployment) -> Iterator[Finding]:
    """Check certificate and key of the listener, and that it does not speak plain text."""
    server = deployment.settings.server
    if server.plaintext:
        remedy = "unset `server.plaintext`, unless no other user runs programs on this machine"
        yield warning(
            _CHECK, "plain text: while the server is down, any user of this machine can impersonate it", remedy
        )
    if deployment.settings.makes_certificate:
        yield from _made_findings(Path(deployment.settings.data_dir))
    if not server.tls_certificate:
        return
    try:
        chain = x509.load_pem_x509_certificates(Path(server.tls_certificate).read_bytes())
    except OSError as error:
        yield problem(_CHECK, f"`{server.tls_certificate}`: {reason_of(error)}", "set `server.tls_certificate`")
        return
    except ValueError:
        remedy = "put the server's certificate there, followed by those that lead to a root"
        yield problem(_CHECK, f"`{server.tls_certificate}` holds no certificate in PEM", remedy)
        return
    now = deployment.clock.now().wall_at
    found = [*_key_findings(Path(server.tls_key), chain[0]), *_findings(chain, now)]
    found += _root_findings(Path(server.tls_client_roots), now) if server.tls_client_roots else ()
    names = ", ".join(f"`{name}`" for name in _names(chain[0]))
    yield from found or [fine(_CHECK, f"valid until {_day(_last(chain))}, for {names}")]


def _made_findings(data_dir: Path) -> Iterator[Finding]:
    """Check the certificate that a server on loopback creates.

    The start renews an expired one.
    """
    if not data_dir.is_dir():
        return
    path, authority = (data_dir / TLS_FOLDER / name for name in (CERTIFICATE_FILE, AUTHORITY_FILE))
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
    except FileNotFoundError:
        remedy = "`pdp init` or the next start creates it; clients need `tls/ca.pem`"
        yield warning(_CHECK, f"there is no certificate: `{path}`", remedy)
    except (OSError, ValueError):
        yield problem(
            _CHECK, f"`{path}` cannot be read as a certificate", "remove it: the next start creates a new one"
        )
    else:
        yield fine(_CHECK, f"clients know the server by `{authority}`; its certificate ends {_day(_last(chain))}")


def _key_findings(path: Path, leaf: x509.Certificate) -> Iterator[Finding]:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        yield problem(
            _CHECK, f"`{path}`: {reason_of(error)}", "set `server.tls_key`, and let the server's user read it"
        )
    except TypeError:
        yield problem(
            _CHECK, f"the key `{path}` needs a password", "write it without a password, readable only by its owner"
        )
    except (ValueError, UnsupportedAlgorithm):
        yield problem(_CHECK, f"`{path}` holds no private key in PEM", "put the key of the certificate there")
    else:
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
            remedy = "put the server's certificate first in its file, and its own key in `server.tls_key`"
            yield problem(_CHECK, f"`{path}` is not the key of the first certificate", remedy)


def _findings(chain: list[x509.Certificate], now: float) -> Iterator[Finding]:
    first, last = max(one.not_valid_before_utc.timestamp() for one in chain), _last(chain)
    if now >= last:
        yield problem(
            _CHECK,
            f"the certificate expired on {_day(last)}",
            "renew it; new connections use the new one without a restart",
        )
    elif now < first:
        yield problem(_CHECK, f"the certificate is not valid before {_day(first)}", "wait, or check the clock")
    elif last - now < _SOON_SECONDS:
        yield warning(
            _CHECK,
            f"the certificate expires on {_day(last)}",
            "renew it; new connections use the new one without a restart",
        )
    if not _names(chain[0]):
        remedy = "name the server's hosts as subject alternative names: clients check nothing else"
        yield problem(_CHECK, "the certificate names no host", remedy)


def _root_findings(path: Path, now: float) -> Iterator[Finding]:
    try:
        roots = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        yield problem(_CHECK, f"`{path}`: {reason_of(error)}", "set `server.tls_client_roots`")
        return
    except ValueError:
        yield problem(_CHECK, f"`{path}` holds no certificate in PEM", "put the authorities of callers there")
        return
    for root in roots:
        if not root.not_valid_before_utc.timestamp() <= now < root.not_valid_after_utc.timestamp():
            message = f"an authority in `{path}` is not valid now: `{root.subject.rfc4514_string()}`"
            yield warning(_CHECK, message, "put its successor there; callers with its certificates are refused")


def _last(chain: list[x509.Certificate]) -> float:
    return min(one.not_valid_after_utc.timestamp() for one in chain)


def _names(leaf: x509.Certificate) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
