"""The servers behind the proxy as OAuth sees them (RFC 9728): where clients learn who issues tokens for one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from pdp.errors import ConfigurationError
from pdp.foundation.loopback import is_secure

# The path of the resource follows.
WELL_KNOWN = "/.well-known/oauth-protected-resource"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectedResource:
    """The proxy as OAuth sees it: its URL for clients, which tokens must be for, and who issues them."""

    url: str
    issuer: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if not (is_secure(parts) and parts.hostname) or parts.query or parts.fragment:
            raise ConfigurationError(
                "`jwt.audience` must be the URL by which clients call this proxy, so that a token for another server "
                "is not taken here: https, or http on loopback"
            )

    @property
    def path(self) -> str:
        """Return the path of its URL."""
        return urlsplit(self.url).path

    @property
    def metadata(self) -> str:
        """Return what a client reads before it asks the issuer for a token (RFC 9728)."""
        return json.dumps(
            {"resource": self.url, "authorization_servers": [self.issuer], "bearer_methods_supported": ["header"]}
        )

    def challenge(self, error: str = "") -> str:
        """Return the value of `WWW-Authenticate` that leads there."""
        parts = urlsplit(self.url)
        place = f'Bearer resource_metadata="{parts.scheme}://{parts.netloc}{WELL_KNOWN}{parts.path.rstrip("/")}"'
        return f'{place}, error="{error}"' if error else place
