"""Answers `PolicyService`: the running bundle, and tools for the authors of the next one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from google.protobuf.message import Message

from pdp.bundles.keeper import BundleKeeper, BundleStatus, KeptBundle
from pdp.decision.explainer import Explainer
from pdp.errors import BundleUnavailableError, InvalidRequestError, Problem
from pdp.limits import Limits
from pdp.policy.bundle import Bundle
from pdp.server.explaining import explain
from pdp.server.fields import optional_text, require_digest, timestamp
from pdp.server.messages import reading_message
from pdp.server.repeats import Repeats
from pdp.serving.origin import Origin
from pdp.sessions.values import ActiveBundle
from pdp.v1 import explain_pb2 as explanations
from pdp.v1 import policy_pb2 as policies
from pdp.v1 import reading_pb2 as readings

_DECISIONS = {
    "Allow": policies.ENGINE_DECISION_ALLOW,
    "Deny": policies.ENGINE_DECISION_DENY,
    "NoDecision": policies.ENGINE_DECISION_NO_DECISION,
}
_SEVERITIES = {"error": policies.SEVERITY_ERROR, "warning": policies.SEVERITY_WARNING}
# Of `GetBundle`: a client accepts messages of up to 4 MiB.
_MOST_SHOWN_POLICIES, _TEXT_BYTES = 100, 1024 * 1024
_POSITION = re.compile(r"policy([0-9]+)")
# The fields of `EvaluateRequest` that can continue from one message to the next.
_TEXTS = ("policies", "schema", "schema_json", "entities_json")


class Evaluator(Protocol):
    """Evaluates foreign policy text in a process that can end without harm.

    `evaluate` takes the fields of `EvaluateRequest` and returns `evaluations`, `valid` and `validation_errors`, or
    `invalid` with `field` and `problem`. Raise `UnavailableError` or `OverloadedError` when there is no answer.
    """

    def evaluate(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Evaluate one job."""
        ...


class PolicyHandlers:
    """One method for each RPC; each takes the message and its origin."""

    def __init__(self, keeper: BundleKeeper, evaluator: Evaluator, explainer: Explainer, limits: Limits) -> None:
        self._keeper = keeper
        self._evaluator = evaluator
        self._explainer = explainer
        self._limits = limits
        self._repeats = Repeats(keeper.written)

    def get_bundle(self, request: policies.GetBundleRequest, _: Origin) -> policies.GetBundleResponse:
        """Show the running bundle, or why there is none; or another bundle that is kept."""
        if len(request.policy_ids) > _MOST_SHOWN_POLICIES:
            raise InvalidRequestError("policy_ids", f"more than {_MOST_SHOWN_POLICIES}")
        status = self._keeper.status()
        shown, bundle = _running_message(status), status.bundle
        if request.version:
            bundle, activation = self._keeper.find(require_digest("version", request.version))
            shown = _bundle_message(bundle, activation, status)
        if shown and bundle and request.policy_ids:
            _show_texts(shown, bundle, frozenset(request.policy_ids))
        return policies.GetBundleResponse(
            bundle=shown,
            load_errors=[str(problem) for problem in status.load_errors],
            source_version=status.source_version,
            tool_readings=_tool_readings(bundle) if bundle and request.with_readings else (),
            sessions_unfit=self._keeper.unfit_sessions(bundle) if bundle and request.with_sessions else 0,
        )

    def list_bundles(self, _: policies.ListBundlesRequest, __: Origin) -> policies.ListBundlesResponse:
        """List the bundles that are kept."""
        status = self._keeper.status()
        return policies.ListBundlesResponse(bundles=[_kept_message(one, status) for one in self._keeper.kept()])

    def activate_bundle(
        self, request: policies.ActivateBundleRequest, origin: Origin
    ) -> policies.ActivateBundleResponse:
        """Make a version the running bundle."""
        version = require_digest("version", request.version)
        reason = optional_text("reason", request.reason, self._limits.text_characters)
        activate = partial(self._keeper.activate, version, by=origin.caller.id, reason=reason)
        return policies.ActivateBundleResponse(**self._activated(request, origin, activate))

    def reload_bundle(self, request: policies.ReloadBundleRequest, origin: Origin) -> policies.ReloadBundleResponse:
        """Load what the source holds now."""
        reload = partial(self._keeper.reload, by=origin.caller.id)
        return policies.ReloadBundleResponse(**self._activated(request, origin, reload))

    def _activated(self, request: Message, origin: Origin, activate: Callable[..., bool]) -> dict[str, Any]:
        """Activate a bundle, and return the fields of the answer; without activating it when that was asked before."""
        lacking: list[str] = []
        version, changed = self._repeats.once(
            request,
            origin,
            lambda write: ("", activate(write=write, on_lacking=lacking.extend)),
            lambda written: (written[0], written[1:] != written[:1]),
            idle=lambda found: not found[1],
        )
        bundle, shown = self._shown(version)
        unfit = self._keeper.unfit_sessions(bundle)
        return {"bundle": shown, "changed": changed, "sessions_unfit": unfit, "servers_lacking": lacking}

    def _shown(self, version: str) -> tuple[Bundle, policies.Bundle]:
        """Return a kept bundle, by default the running one, and its message."""
        status = self._keeper.status()
        if version:
            bundle, activation = self._keeper.find(version)
            return bundle, _bundle_message(bundle, activation, status)
        shown = _running_message(status)
        if shown is None or status.bundle is None:
            raise BundleUnavailableError("another worker has activated another bundle; try again")
        return status.bundle, shown

    def check_bundle(self, requests: Sequence[policies.CheckBundleRequest], _: Origin) -> policies.CheckBundleResponse:
        """Check a bundle without loading it."""
        report = self._keeper.check(_files(requests) or None)
        return policies.CheckBundleResponse(
            problems=[_problem_message(one) for one in report.errors],
            version=report.version,
            warnings=[_problem_message(one) for one in report.warnings],
        )

    def evaluate(self, requests: Sequence[policies.EvaluateRequest], _: Origin) -> policies.EvaluateResponse:
        """Evaluate plain Cedar."""
        job: dict[str, Any] = {field: "".join(getattr(one, field) for one in requests) for field in _TEXTS}
        job |= {
            "template_links": [_link(link) for one in requests for link in one.template_links],
            "validate": any(one.validate for one in requests),
            "requests_json": [text for one in requests for text in one.requests_json],
            "skip_request_validation": any(one.skip_request_validation for one in requests),
        }
        names: Sequence[str] = ()
        if any(one.running_bundle for one in requests):
            for field in ("policies", "schema", "schema_json"):
                if job[field]:
                    raise InvalidRequestError(field, "must be empty with `running_bundle`")
            bundle = self._keeper.current()
            names = tuple(bundle.policies)
            job["policies"] = "\n".join(policy.text for policy in bundle.policies.values())
            job["schema"] = bundle.schema_text()
        result = self._evaluator.evaluate(job)
        if "invalid" in result:
            raise InvalidRequestError(result["invalid"]["field"], result["invalid"]["problem"])
        return policies.EvaluateResponse(
            evaluations=[_evaluation_message(one, names) for one in result["evaluations"]],
            valid=result["valid"],
            validation_errors=result["validation_errors"],
        )

    def explain(self, request: explanations.ExplainRequest, origin: Origin) -> explanations.ExplainResponse:
        """Explain what would be decided about a call."""
        # Here and not in the child process, because the running policies have been checked, and the store is here.
        return explain(self._explainer, request, origin, self._limits)


def _running_message(status: BundleStatus) -> policies.Bundle | None:
    if status.bundle is None or status.active is None:
        return None
    return _bundle_message(status.bundle, status.active, status)


def _bundle_message(bundle: Bundle, activation: ActiveBundle, status: BundleStatus) -> policies.Bundle:
    message = _kept_message(KeptBundle(activation=activation, name=bundle.name, label=bundle.label), status)
    for _, policy in sorted(bundle.policies.items()):
        message.policies.add(policy_id=policy.id, effect=policy.effect, file=policy.file, line=policy.line)
    message.tool_count = len(bundle.catalogue.tools)
    return message


def _show_texts(message: policies.Bundle, bundle: Bundle, ids: frozenset[str]) -> None:
    """Leave only these policies in a message, each with its text as long as all of them fit into an answer."""
    chosen, size = [one for one in message.policies if one.policy_id in ids], 0
    for one in chosen:
        text = bundle.policies[one.policy_id].text
        size += len(text)
        one.text = text if size <= _TEXT_BYTES else ""
    del message.policies[:]
    message.policies.extend(chosen)


def _tool_readings(bundle: Bundle) -> list[readings.ToolReading]:
    return [
        readings.ToolReading(server=tool.server, tool=tool.name, reading=reading_message(bundle.slice(action).reading))
        for action, tool in sorted(bundle.catalogue.tools.items())
    ]


def _kept_message(kept: KeptBundle, status: BundleStatus) -> policies.Bundle:
    activation = kept.activation
    return policies.Bundle(
        version=activation.version,
        name=kept.name,
        label=kept.label,
        activate_time=timestamp(activation.activated_at),
        activated_by=activation.activated_by,
        reason=activation.reason,
        active=status.active is not None and status.active.version == activation.version,
        chosen=activation.chosen,
        number=activation.number,
        signed_by=activation.signed_by,
    )


def _files(requests: Sequence[policies.CheckBundleRequest]) -> dict[str, bytes]:
    """Return the files of an upload. A message's first file can continue the last one of the message before."""
    pieces: dict[str, list[bytes]] = {}
    last, index = None, 0
    for request in requests:
        for number, file in enumerate(request.files):
            if file.path in pieces and (number or file.path != last):
                raise InvalidRequestError(f"files[{index}].path", "appears twice")
            pieces.setdefault(file.path, []).append(file.content)
            last, index = file.path, index + 1
    return {path: b"".join(contents) for path, contents in pieces.items()}


def _problem_message(problem: Problem) -> policies.Problem:
    return policies.Problem(
        file=problem.file,
        line=problem.line,
        message=problem.message,
        severity=_SEVERITIES[problem.severity],
        code=problem.code,
        column=problem.column,
        help=problem.help,
        width=problem.width,
    )


def _link(link: policies.TemplateLink) -> dict[str, Any]:
    job: dict[str, Any] = {"template_id": link.template_id, "new_id": link.new_id}
    if link.HasField("principal"):
        job["principal"] = {"type": link.principal.type, "id": link.principal.id}
    if link.HasField("resource"):
        job["resource"] = {"type": link.resource.type, "id": link.resource.id}
    return job


def _evaluation_message(evaluation: Mapping[str, Any], names: Sequence[str]) -> policies.Evaluation:
    return policies.Evaluation(
        decision=_DECISIONS[evaluation["decision"]],
        reasons=sorted(_named(one, names) for one in evaluation["reasons"]),
        erroring_policies=sorted(_named(one, names) for one in evaluation["erroring_policies"]),
        errors=evaluation["errors"],
    )


def _named(policy_id: str, names: Sequence[str]) -> str:
    # The engine numbers policies by their position in the text; we know the `@id` of each one in the running bundle.
    match = _POSITION.fullmatch(policy_id) if names else None
    return names[int(match[1])] if match and int(match[1]) < len(names) else policy_id
