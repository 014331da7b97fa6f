"""Check what decides whether a credential is accepted: the issuer's keys, and the deny-list."""

from __future__ import annotations

from collections.abc import Iterator

from pdp.callersettings import keys_of_url
from pdp.doctor.finding import Deployment, Finding, fine, problem
from pdp.errors import ConfigurationError


def deny_list(deployment: Deployment) -> Iterator[Finding]:
    """Name the file that denies; the needs of a start cover its use."""
    if deployment.settings.callers.denied_file:
        yield fine("deny-list", f"`{deployment.settings.callers.denied_file}` can be used")


def token_issuer(deployment: Deployment) -> Iterator[Finding]:
    """Fetch the issuer's keys from their URL; the needs of a start cover a file's."""
    jwt = deployment.settings.jwt
    if not jwt.issuer:
        return
    if jwt.keys_url:
        keys, _ = keys_of_url(jwt, deployment.clock)
        try:
            keys.load()
        except ConfigurationError as error:
            remedy = "fix the connection: until the keys are read no JSON Web Token is accepted"
            yield problem("token issuer", f"`jwt.keys_url`: {error}", remedy)
            return
    yield fine("token issuer", f"the keys of `{jwt.issuer}` can be used")
