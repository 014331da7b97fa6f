"""The way of a case through the independent oracle: the notation in the oracle's own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdp.decision.stepup import UNASKED
from pdp.foundation.jsontext import definition_digest
from pdp.testing.bundles import OPEN_SESSIONS
from pdp.testing.clock import FakeClock
from tests.machinery.oracle.judge import Answer, Bundle, Tool, Uid, entity, parsed
from tests.machinery.oracle.model import Oracle, Session, Time
from tests.machinery.ways.notation import Case, Step, changed, definition_of, plain, schema_of, written
from tests.machinery.ways.ways import CALLERS, RefusedError, Seen, Sessions, ends_at, move_time, stated_digest

# The oracle knows what it cannot express by one word.
_KINDS = dict.fromkeys(("number", "anything", "hidden", "payments", "broken"), "opaque")

# Who may see a session and answer for a call, and whether a bundle loads, is nothing that the oracle knows: it takes
# the case's word.
_UNKNOWN_TO_IT = ("NotFoundError", "BundleError")

# The oracle has a word for each reason why no person is asked.
_UNASKED = {f"unasked: {why.value}": said for why, said in UNASKED.items()}


class OracleWay:
    """Through the oracle, which has no cache, no trace and no record."""

    def __init__(self, case: Case) -> None:
        self._clock = FakeClock()
        self._oracle = Oracle(self._now)
        self._bundle = case.bundle
        self._sessions = Sessions()
        self._shown: dict[str, Mapping[str, str]] = {}
        self._oracle.activate(oracle_bundle(case.bundle))

    def take(self, step: Step) -> Mapping[str, Any]:
        """Take a step that is no call; what the oracle does not do, it is not asked."""
        if move_time(self._clock, step):
            return {}
        if step.refused in _UNKNOWN_TO_IT or (step.verb.endswith("_call") and step.refused == "PermissionDeniedError"):
            raise RefusedError((step.refused,), "the case says so")
        found: Mapping[str, Any] = getattr(self, f"_{step.verb}")(step)
        return found

    def call(self, step: Step, request_id: str) -> Seen:
        """Ask about a call."""
        server, _, tool = step.subject.partition("/")
        caller = CALLERS[step.caller]
        digest = stated_digest(self._bundle, step)
        answer = self._oracle.call(
            step.given["session"],
            caller.tenant,
            caller.id,
            server,
            tool,
            step.arguments,
            digest,
            step.facts,
            request_id=request_id,
            sees_results=caller.sees_results,
        )
        if answer.basis == "refused":
            raise RefusedError(("InvalidRequestError",), "the oracle refuses")
        if "result" in step.given:
            arguments = parsed(step.arguments or b"{}")
            self._oracle.read(step.given["session"], step.subject, arguments, plain(step.given["result"]))
        if step.given.get("fails"):
            self._oracle.fail(step.given["session"], self._oracle.counted_as(self._oracle.bundle.tools[step.subject]))
        return self._seen(step, answer)

    def _request(self, step: Step) -> Mapping[str, Any]:
        given, caller = step.given, CALLERS[step.caller]
        session = Session(
            name=step.subject,
            tenant=caller.tenant,
            opened_by=caller.id,
            user=given["user"],
            agent=given["agent"],
            patterns=given["tools"],
            duration=float(given.get("duration", 3600)),
            purpose=given.get("purpose", "to show a rule"),
            labels=frozenset(given.get("labels", ())),
            attributes=plain(given.get("attributes", {})),
            terms=_terms(step),
            may_delegate=given.get("may_delegate", False),
        )
        _require(step, happened=self._oracle.request(session, caller.id, given.get("parent", "")))
        self._shown[step.subject] = self._oracle.shown(session)
        return {"becomes": self._oracle.state(session)}

    _delegate = _request

    def _approve(self, step: Step) -> Mapping[str, Any]:
        session = self._oracle.sessions[step.subject]
        shown = self._oracle.shown(session) if step.given.get("shown") == "now" else self._shown[step.subject]
        grants = step.given.get("grants", ())
        _require(step, happened=self._oracle.approve(step.subject, shown, grants, step.caller))
        return self._look(step)

    def _deny(self, step: Step) -> Mapping[str, Any]:
        _require(step, happened=self._oracle.deny(step.subject))
        return self._look(step)

    def _end(self, step: Step) -> Mapping[str, Any]:
        _require(step, happened=self._oracle.end(step.subject))
        return self._look(step)

    def _revoke(self, step: Step) -> Mapping[str, Any]:
        if step.refused:
            # So is whose sessions a caller may revoke.
            raise RefusedError((step.refused,), "the case says so")
        ((kind, value),) = step.subject.items()
        before = self._states()
        _require(step, happened=self._oracle.revoke(kind, value, CALLERS[step.caller].tenant))
        after = self._states()
        return {"revokes": sorted(name for name in after if after[name] == "revoked" != before[name])}

    def _narrow(self, step: Step) -> Mapping[str, Any]:
        end = ends_at(self._clock, step)
        narrowed = self._oracle.narrow(step.subject, step.given.get("tools", ()), end, step.given.get("labels", ()))
        _require(step, happened=narrowed)
        return self._look(step)

    def _look(self, step: Step) -> Mapping[str, Any]:
        session = self._oracle.sessions[step.subject]
        state = self._oracle.state(session)
        scope = self._oracle.expansion(session) if state == "requested" else session.scope
        return {"state": state, "tools": sorted(scope), "left": self._oracle.left(session)}

    def _approve_call(self, step: Step) -> Mapping[str, Any]:
        asked, calls = self._sessions.questions[step.subject], step.given.get("calls", 1)
        _require(step, happened=self._oracle.answer(asked, "yes", calls))
        return {}

    def _deny_call(self, step: Step) -> Mapping[str, Any]:
        _require(step, happened=self._oracle.answer(self._sessions.questions[step.subject], "no"))
        return {}

    def _revoke_call(self, step: Step) -> Mapping[str, Any]:
        _require(step, happened=self._oracle.answer(self._sessions.questions[step.subject], "revoked"))
        return {}

    def _freeze(self, step: Step) -> Mapping[str, Any]:
        if step.refused:
            # Who may freeze a tenant is nothing that the oracle knows.
            raise RefusedError((step.refused,), "the case says so")
        _require(step, happened=self._oracle.freeze(step.subject, step.caller))
        return {}

    def _lift(self, step: Step) -> Mapping[str, Any]:
        if step.refused and step.caller != self._oracle.freezes.set_by(step.subject):
            raise RefusedError((step.refused,), "the case says so")
        _require(step, happened=self._oracle.lift(step.subject, step.caller))
        return {"left": "confirmed" if self._oracle.freezes.set_by(step.subject) else "nothing"}

    def _reload(self, step: Step) -> Mapping[str, Any]:
        bundle = changed(self._bundle, step.subject or {})
        differs = bundle != self._bundle
        self._bundle = bundle
        self._oracle.activate(oracle_bundle(bundle))
        return {"changed": differs}

    def _states(self) -> dict[str, str]:
        return {name: self._oracle.state(session) for name, session in self._oracle.sessions.items()}

    def _seen(self, step: Step, answer: Answer) -> Seen:
        known = answer.basis != "session_not_found"
        return Seen(
            allowed=answer.basis == "permit",
            basis=answer.basis,
            policies=answer.policies,
            session=step.given["session"] if known else "",
            ancestor=answer.ancestor,
            ancestor_basis=answer.ancestor_basis,
            labels_added=answer.labels,
            obligations=answer.obligations,
            advice=tuple(_UNASKED.get(line, line) for line in answer.advice),
            question=self._sessions.asked(answer.question, step),
            lifted=answer.lifted,
            debits=dict(answer.debits),
            partly={
                "pdp.obligations": tuple(dict.fromkeys(name for name, _ in answer.obligations)) or None,
                "pdp.debits": tuple(name for name, _ in answer.debits) or None,
                "pdp.errors": answer.errors or None,
                "pdp.resource.type": answer.resource[0] or None,
                "pdp.resource.id": answer.resource[1] or None,
            },
        )

    def _now(self) -> Time:
        now = self._clock.now()
        return now.wall_at, now.boot_at, now.boot_id


def oracle_bundle(bundle: Mapping[str, Any]) -> Bundle:
    """Return a bundle of the notation as the oracle has it."""
    labels = bundle.get("labels", {})
    tools = [_tool(server, name, tool) for server, named in bundle["tools"].items() for name, tool in named.items()]
    return Bundle(
        schema=schema_of(bundle),
        policies="\n".join([*bundle["policies"].values(), bundle.get("sessions", OPEN_SESSIONS)]),
        tools={f"{tool.server}/{tool.name}": tool for tool in tools},
        facts=bundle.get("caller_facts", {}),
        entities=list(_entities(bundle["directory"])),
        ceilings={name: (said or {}).get("ceiling", ()) for name, said in bundle["directory"]["agents"].items()},
        request_seconds=float(bundle.get("request_seconds", 3600)),
        groups=tuple(bundle.get("groups", {})),
        terms=bundle.get("terms"),
        known=bundle.get("known", ()),
        widening=frozenset(name for name, label in labels.items() if label.get("widens")),
        reported=frozenset(
            name for name, label in labels.items() if label.get("reported", True) and not label.get("widens")
        ),
    )


def _tool(server: str, name: str, tool: Mapping[str, Any]) -> Tool:
    said = tool.get("parameters") or {}
    kinds = {parameter.removesuffix("?"): _KINDS.get(kind, kind) for parameter, kind in said.items()}
    return Tool(
        server=server,
        name=name,
        risk=tool["risk"],
        digest=definition_digest(definition_of(name, tool)),
        parameters=kinds,
        required=[parameter for parameter in said if not parameter.endswith("?")],
        resource=_resource(tool["resource"]) if "resource" in tool else None,
        lower="lower" in (tool.get("canonical") or {}).values(),
        digest_required=tool.get("digest") == "required",
        groups=tool.get("groups", ()),
        # No arguments fit a schema that leads elsewhere.
        labels=tool.get("adds_labels", ()),
        targets=_targets(tool.get("targets")),
        texts=tool.get("text"),
        sums=tool.get("sums", ""),
        trusted=tool.get("results") == "trusted",
        issues=tool.get("issues", ()),
        schema=False if "broken" in said.values() else definition_of(name, tool)["inputSchema"],
    )


def _targets(said: Any) -> list[tuple[str, str]] | None:
    if said is None:
        return None
    return list(said.items()) if isinstance(said, dict) else [(path, "") for path in said]


def _resource(said: str) -> tuple[str, tuple[str, ...]]:
    entity_type, _, template = said.partition(" ")
    return entity_type, tuple(part.strip("{}") for part in template.split("/"))


def _entities(directory: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for key, kind, group, parents in (
        ("user_groups", "UserGroup", "UserGroup", "parents"),
        ("agent_groups", "AgentGroup", "AgentGroup", "parents"),
        ("users", "User", "UserGroup", "groups"),
        ("agents", "Agent", "AgentGroup", "groups"),
    ):
        for name, said in directory.get(key, {}).items():
            above: list[Uid] = [(group, one) for one in (said or {}).get(parents, ())]
            found.append(entity((kind, name), plain((said or {}).get("attributes", {})), above))
    for one in directory.get("entities", ()):
        above = [(parent["type"], parent["id"]) for parent in one.get("parents", ())]
        found.append(entity((one["type"], one["id"]), plain(one.get("attributes", {})), above))
    return found


def _terms(step: Step) -> dict[str, Any]:
    try:
        return parsed(written(step.given.get("terms")))
    except ValueError:
        # No bundle declares such a term.
        return {"": ""}


def _require(step: Step, *, happened: bool) -> None:
    if not happened:
        raise RefusedError((step.refused or "the oracle refuses",), "the oracle does not say why")
