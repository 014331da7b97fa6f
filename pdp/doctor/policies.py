"""Check that there is a bundle that loads, with a trusted signature where one is required."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pdp.app.embedded import compile_once
from pdp.bundlesettings import Sourcing, sourcing_of, trust_of
from pdp.config.settings import Settings
from pdp.doctor.callers import approvers
from pdp.doctor.finding import Deployment, Finding, fine, problem, warning
from pdp.errors import BundleError, BundleUnavailableError, ConfigurationError, PDPError
from pdp.policy.loading import assemble, check_bundle

_CHECK: Final = "policies"
_SHOWN_PROBLEMS: Final = 5
_SHOWN_VERSION: Final = 19


def policies(deployment: Deployment) -> Iterator[Finding]:
    """Read the source of bundles as the server would, and compile its content."""
    settings = deployment.settings
    try:
        trust, sourcing = trust_of(settings), sourcing_of(settings)
    except ConfigurationError as error:
        yield problem(_CHECK, str(error), "put the public keys there, in PEM")
        return
    try:
        delivery = sourcing.source.read()
        signer = trust.verify(delivery).signed_by
        found = check_bundle(delivery.files, settings.limits, compile_once())
    except BundleError as error:
        for one in error.problems[:_SHOWN_PROBLEMS]:
            yield problem(_CHECK, f"{sourcing.name}: {one}", "fix it; `pdp check` shows where")
        return
    except BundleUnavailableError as error:
        yield problem(_CHECK, str(error), _without_source(sourcing))
        return
    except PDPError as error:
        yield problem(_CHECK, f"{sourcing.name}: {error}", "fix it; `pdp check` shows where")
        return
    signed = f"signed by `{signer}`" if signer else "not signed"
    yield fine(
        _CHECK, f"{sourcing.name}: {len(found.policies)} policies, {delivery.version[:_SHOWN_VERSION]}…, {signed}"
    )
    yield from _signature_findings(settings)
    yield from approvers(deployment, assemble(delivery.files, found, settings.limits))


def _signature_findings(settings: Settings) -> Iterator[Finding]:
    if settings.policies.url and not settings.policies.require_signature:
        yield warning(
            _CHECK,
            "bundles from `policies.url` are accepted without a signature: that server decides what is allowed",
            "sign them (`pdp bundle sign`), and set `policies.require_signature` and `policies.public_keys`",
        )


def _without_source(sourcing: Sourcing) -> str:
    if sourcing.source.last_good() is not None:
        return "fix the connection; until then a server starts with the last good bundle"
    return "fix the connection: a server that has no bundle yet does not start"
