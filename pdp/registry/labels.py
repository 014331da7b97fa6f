"""Which labels a session may get, and when."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from pdp.errors import InvalidRequestError
from pdp.foundation.yamltext import unknown
from pdp.policy.labels import Label


def require_labels(
    asked: Iterable[str],
    declared: Mapping[str, Label],
    *,
    present: Collection[str] = (),
    widening: bool = False,
    reported: bool = False,
) -> None:
    """Raise `InvalidRequestError` naming the first label that the session may not get.

    `present` holds the labels that it already has; they stay even if they are no longer declared. `widening` says
    whether labels that widen are permitted: only in a request that an approver sees. `reported` says that they come
    with a report.
    """
    for index, name in enumerate(asked):
        if name in present:
            continue
        if name not in declared:
            raise InvalidRequestError(f"labels[{index}]", unknown("label", name, declared))
        if declared[name].widens and not widening:
            raise InvalidRequestError(
                f"labels[{index}]", f"`{name}` widens: only the request of a session without a parent can ask for it"
            )
        if reported and not declared[name].reported:
            raise InvalidRequestError(f"labels[{index}]", f"`{name}` does not come by a report: `bundle.yaml` says so")
