"""Check the decision log: whether it can be written, and whether its last signed records are there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from pdp.config.settings import Settings
from pdp.doctor.finding import Deployment, Finding, fine, problem
from pdp.errors import ConfigurationError, reason_of
from pdp.record.anchors import Anchors
from pdp.record.ends import chain_ends
from pdp.record.keys import PublicKeys, SigningKey
from pdp.starting import more_keys_of

_CHECK: Final = "record"


def record(deployment: Deployment) -> Iterator[Finding]:
    """Check that the folder of the record can be written, and that for copies, if there is one."""
    folder, shared = deployment.settings.record_folder.absolute(), deployment.settings.record_shared
    yield fine(_CHECK, f"`{folder}` can be written" if folder.exists() else f"`{folder}` can be created")
    yield from _more_keys(deployment.settings)
    if shared is not None and not os.access(shared, os.R_OK | os.W_OK | os.X_OK):
        found = f"`{shared}` is not there, or cannot be written: other servers answer without the records of this one"
        yield problem(_CHECK, found, "mount it, and let the server's user write there (`record.shared_folder`)")


def _more_keys(settings: Settings) -> Iterator[Finding]:
    # That they cannot be read is in the list of needs.
    with suppress(ConfigurationError):
        count = len(more_keys_of(settings))
        if count:
            keys = f"{count} more public key{'s' * (count > 1)}"
            yield fine(_CHECK, f"segments are verified with {keys} (`{settings.record.public_keys}`)")


def record_ends(deployment: Deployment) -> Iterator[Finding]:
    """Check the last checkpoint of each chain, and the heads that are kept elsewhere."""
    settings, folder = deployment.settings, deployment.settings.record_folder
    anchors = Anchors(settings.record_anchors)
    try:
        signer = SigningKey.load(settings.record_signing_key)
        if folder.is_dir():
            ends, lost = chain_ends(folder, PublicKeys.of(signer)), anchors.lost(folder)
        else:
            ends, lost = (), dict.fromkeys(anchors.heads() if settings.record_anchors.is_dir() else (), "")
    except ConfigurationError:
        return  # the check of keys reports it
    except OSError as error:
        yield problem(_CHECK, f"`{error.filename}`: {reason_of(error)}", "run `pdp doctor` as the user of the server")
        return
    wrong = {one.chain: one.problem for one in ends if one.problem}
    wrong = (
        dict.fromkeys(lost, "the last record that was certainly signed is missing: the chain was cut, or is gone")
        | wrong
    )
    signed = max((one.signed_at for one in ends), default="")
    for chain, what in wrong.items():
        yield problem(_CHECK, f"chain {chain}: {what}", "find out who changed it; `pdp audit verify` reads all of it")
    if not wrong:
        yield fine(_CHECK, f"{len(ends)} chains, last signed at {signed}" if signed else "nothing is signed yet")
