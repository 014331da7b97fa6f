# Generated from pdp/client/aio/policies.py by `make client`; never edited.

"""Look after bundles, and ask what policies say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pdp.client import operations
from pdp.client.sync.calls import Calls
from pdp.v1 import explain_pb2, policy_pb2


class PolicyCalls:
    """The calls of a client about policies."""

    _calls: Calls

    def get_bundle(
        self, version: str = "", *, with_sessions: bool = False, policy_ids: Sequence[str] = ()
    ) -> policy_pb2.GetBundleResponse:
        """Return the running bundle, or a kept version; and why the last load failed.

        With `with_sessions` also how many sessions it would deny because of their terms; with `policy_ids` only these
        policies, with their texts.
        """
        return self._calls.manage(operations.get_bundle(version, with_sessions=with_sessions, policy_ids=policy_ids))

    def list_bundles(self) -> tuple[policy_pb2.Bundle, ...]:
        """Return the bundles that can be activated again, newest activation first."""
        return self._calls.manage(operations.list_bundles())

    def activate_bundle(self, version: str, *, reason: str = "") -> policy_pb2.ActivateBundleResponse:
        """Make a version the running bundle, with a reason for the record.

        It stays until there is new content.
        """
        return self._calls.manage(operations.activate_bundle(version, reason=reason))

    def reload_bundle(self) -> policy_pb2.ReloadBundleResponse:
        """Have the server load the current content of its source of bundles.

        A bad bundle changes nothing.
        """
        return self._calls.manage(operations.reload_bundle())

    def check_bundle(self, files: Mapping[str, bytes] | None = None) -> policy_pb2.CheckBundleResponse:
        """Check a bundle, path to content, without loading it.

        Without files, check the server's own folder.
        """
        return self._calls.manage(operations.check_bundle(files))

    def evaluate(
        self,
        requests: Iterable[Mapping[str, Any] | str],
        *,
        policies: str | None = None,
        entities: Sequence[Mapping[str, Any]] | str = "",
        schema: str | Mapping[str, Any] = "",
        template_links: Iterable[policy_pb2.TemplateLink] = (),
        validate: bool = False,
        skip_request_validation: bool = False,
    ) -> policy_pb2.EvaluateResponse:
        """Evaluate plain Cedar requests, by default with the running bundle's policies.

        The schema is then that bundle's. Requests and entities are Cedar's JSON, as values or as text; a schema is
        Cedar's text or its JSON as a value.
        """
        return self._calls.manage(
            operations.evaluate(
                requests,
                policies=policies,
                entities=entities,
                schema=schema,
                template_links=template_links,
                validate=validate,
                skip_request_validation=skip_request_validation,
            )
        )

    def explain(
        self,
        server: str,
        tool: str,
        arguments: Mapping[str, Any] | bytes | None = None,
        *,
        session_id: str = "",
        user: str = "",
        agent: str = "",
        grants: Sequence[str] = (),
        labels: Sequence[str] = (),
        purpose: str = "",
        environment: str = "",
        user_attributes: Mapping[str, Any] | bytes | None = None,
        terms: Mapping[str, Any] | bytes | None = None,
        definition_digest: str = "",
        facts: Mapping[str, Any] | bytes | None = None,
        caller_id: str = "",
        at: float | None = None,
    ) -> explain_pb2.ExplainResponse:
        """Explain the decision that a call would get. Nothing is decided or remembered.

        The call is one of the session with this public id, or of a hypothetical session, of `user` and `agent`.
        `caller_id` is the gateway that makes it, by default the session's; `at` is unix seconds, by default now.
        """
        return self._calls.manage(
            operations.explain(
                server,
                tool,
                arguments,
                session_id=session_id,
                user=user,
                agent=agent,
                grants=grants,
                labels=labels,
                purpose=purpose,
                environment=environment,
                user_attributes=user_attributes,
                terms=terms,
                definition_digest=definition_digest,
                facts=facts,
                caller_id=caller_id,
                at=at,
            )
        )
