"""What is known of names from the results that a session and its relatives have read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from pdp.foundation.names import Name
from pdp.foundation.valuedigests import value_digest
from pdp.model import Session
from pdp.policy.provenance import FindNames
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.valuekeys import key_of


def names_in_results(history: SessionHistory, chain: Sequence[Session], handle: str) -> FindNames:
    """Return what finds names in the results of the tree that a session with a secret handle is in.

    It raises `UnavailableError` or `OverloadedError` when it cannot tell.
    """
    return partial(_found, history, chain, handle)


def _found(
    history: SessionHistory, chain: Sequence[Session], handle: str, names: Collection[Name]
) -> Mapping[Name, str]:
    key = key_of(chain[0], handle) if names else b""
    if not key:
        return {}
    digests = {value_digest(key, name): name for name in names}
    return {digests[one]: found.value for one, found in history.values().classes(chain[-1].id, digests.keys()).items()}
