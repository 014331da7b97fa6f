"""A bundle that runs: the compiled policies, sliced by action, and the questions to the engine."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cedarpy

from pdp.errors import InvalidArgumentsError
from pdp.model import NO_TERMS, Basis, Call, Outcome, Ruling, Session, Visibility
from pdp.policy.answers import ProbeAnswer
from pdp.policy.contents import Contents
from pdp.policy.counting import CountedNames
from pdp.policy.directory import Directory, Entity, Uid, entity, references, uid_json
from pdp.policy.engine import Foreseen, KeptParts, Slice
from pdp.policy.entities import EntityMemory, SessionContent, SessionEntities, SliceEntities
from pdp.policy.grants import Grants, grants_of
from pdp.policy.plan import Plan
from pdp.policy.policysource import PolicySource
from pdp.policy.provenance import Provenances
from pdp.policy.question import Facts, question_of
from pdp.policy.schema import SESSION_ACTIONS, SESSION_ATTRIBUTES, action_schema, full_schema, preamble, session_action
from pdp.policy.stack import StackCheck
from pdp.policy.terms import ATTRIBUTE, cedar_terms, is_budget, slices_in
from pdp.policy.tools.catalogue import Catalogue, Tool
from pdp.policy.tools.parameters import RecordType
from pdp.policy.tools.typing import terms_type
from pdp.policy.view import EVERYTHING, View

# The ruling when the policies cannot be asked about a session.
MISFIT = Ruling(outcome=Outcome.DENY, basis=Basis.POLICY_ERROR, detail="the session's entities do not fit the schema")
MISFIT_TERMS = replace(MISFIT, detail="the session's terms do not fit the schema")


class _TermsError(ValueError):
    """The terms of a session are not those that the schema declares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledParts:
    """What a child process found in the files of a bundle.

    `terms` is the declaration of `SessionTerms` for `terms_type`, None without one.
    """

    policies: tuple[PolicySource, ...]
    terms: Mapping[str, Any] | None = None


class Bundle:
    """Policies, schema, catalogue and directory under one version. Immutable; slices are made when first needed.

    `memory` keeps the parsed entities of sessions. Bundles may share it: each finds only its own.
    """

    def __init__(
        self,
        version: str,
        contents: Contents,
        parts: CompiledParts,
        stack: StackCheck,
        memory: EntityMemory | None = None,
    ) -> None:
        self.version = version
        self.name = contents.name
        self.label = contents.label
        self.session_seconds = contents.session_seconds
        self.request_seconds = contents.request_seconds
        self.caller_facts = contents.caller_facts
        self.labels = contents.labels
        self.groups = contents.groups
        # Those that only gateways know.
        self.declared_obligations = contents.obligations
        self.widening = frozenset(name for name, label in contents.labels.items() if label.widens)
        # By action; only the tools whose calls add any.
        self.added_labels: Mapping[str, frozenset[str]] = {
            action: frozenset(tool.adds_labels) for action, tool in contents.catalogue.tools.items() if tool.adds_labels
        }
        # In the words of `foundation.names.KINDS`.
        self.target_kinds = tuple(
            sorted({one.kind for tool in contents.catalogue.tools.values() for one in tool.targets or () if one.kind})
        )
        self.catalogue: Catalogue = contents.catalogue
        self.directory: Directory = contents.directory
        self.provenances = Provenances(contents.known, contents.directory)
        self.policies: Mapping[str, PolicySource] = {policy.id: policy for policy in parts.policies}
        self.grants: Grants = grants_of(parts.policies, contents.directory)
        self.terms: RecordType | None = None if parts.terms is None else terms_type(parts.terms)
        # Sessions with other terms are denied by `judge`.
        self.has_budgets = self.terms is not None and any(is_budget(one.name) for one in self.terms.parameters)
        # Only the budgets that servers may take in slices.
        self.budget_slices: Mapping[str, int] = slices_in(parts.terms or {})
        self._declared_terms = parts.terms
        self._author_schema = contents.schema
        self._schema = contents.schema + "\n" + preamble(contents.caller_facts, contents.groups)
        self._count(parts.policies)
        # INVARIANT: a policy for any action, or for a group, is in the slice of each action that it can match.
        self._by_action = _by_action(parts.policies)
        self._stack = stack
        self._session_schema = cedarpy.Schema.from_str(self._schema, release_gil=True)
        self._within: dict[str, frozenset[str]] = {}
        self._slices: dict[str, Slice] = {}
        self._plans: dict[str, Plan] = {}
        self._kept = KeptParts()
        self._memory = memory or EntityMemory()
        # Identifies this bundle in the keys of the memory: many variants can have the same version.
        self._mark = object()
        self._lock = threading.Lock()
        self._origin: Bundle | None = None

    @property
    def parts(self) -> CompiledParts:
        """Return what was found in its files, for a process that need not compile them again."""
        return CompiledParts(policies=tuple(self.policies.values()), terms=self._declared_terms)

    def unapproved_labels(self, session: Session) -> frozenset[str]:
        """Return the labels of a session that widen now, but did not when the session was approved.

        The label was added later, or the approver saw it as one that does not widen. It may also forbid, so a call
        must not be decided without it either.
        """
        # A shortcut, since this runs for each call and most bundles have none.
        if not self.widening:
            return self.widening
        return self.widening.intersection(session.labels).difference(session.widening_labels)

    def widening_labels(self, labels: Iterable[str], actions: Iterable[str]) -> frozenset[str]:
        """Return the widening labels that a session with some labels has, or that calls of its tools can add."""
        if not self.widening:
            return self.widening
        added = (label for action in actions for label in self.added_labels.get(action, ()))
        return self.widening.intersection((*labels, *added))

    def with_directory(self, directory: Directory) -> Bundle:
        """Return the bundle with another directory and the same version, for tests of policies."""
        other = self._variant()
        other.directory = directory
        other.provenances = self.provenances.with_directory(directory)
        other.grants = {**grants_of((), directory), **self.grants}
        return other

    def with_policies(self, policies: Sequence[PolicySource]) -> Bundle:
        """Return the bundle with other policies and the same version and grants.

        It shows what would change. The caller has had the policies parsed and validated in a child process. Actions
        with the same policies share what was parsed for them, so a bundle in which one policy differs costs little.
        """
        other = self._variant()
        other.policies = {policy.id: policy for policy in policies}
        other._count(policies)  # noqa: SLF001 - a copy of this very class
        other._by_action = _by_action(policies)  # noqa: SLF001 - the same
        return other

    def misfits(self, entities: Iterable[Entity]) -> tuple[Entity, ...]:
        """Return the entities that do not fit the schema, or all when they only fail together."""
        whole = tuple(entities)
        if self._fits(whole):
            return ()
        return tuple(one for one in whole if not self._fits((one,))) or whole

    def within_ceiling(self, agent: str) -> frozenset[str]:
        """Return the actions of the catalogue that an agent may ever have; none for an unknown agent."""
        within = self._within.get(agent)
        if within is None:
            ceiling = self.directory.ceilings.get(agent)
            within = frozenset(action for action in self.catalogue.tools if ceiling and ceiling.match(action))
            if ceiling is not None:
                self._within[agent] = within
        return within

    def schema_text(self) -> str:
        """Return the whole schema: the author's part, and every generated action."""
        return full_schema(
            self._author_schema, self.caller_facts, tuple(self.catalogue.tools.values()), self.groups, self.counted
        )

    def slice(self, action: str) -> Slice:
        """Return the slice of an action: a tool of the catalogue, or an action of the PDP itself."""
        found = self._slices.get(action)
        if found is None:
            with self._lock:
                found = self._slices.get(action) or self._slices.setdefault(action, self._make_slice(action))
        return found

    def plan(self, tool: Tool) -> Plan:
        """Return how the calls of a tool of the catalogue are decided."""
        action = tool.action
        # Two threads may make it; both are the same.
        return self._plans.get(action) or self._plans.setdefault(
            action,
            Plan.of(
                tool,
                self.slice(action),
                counted_as=self.counted_as.get(action, ()),
                has_widening=bool(self.widening),
            ),
        )

    def reads_labels(self, call: Call) -> bool:
        """Say whether the decision about a call can depend on the labels of its sessions."""
        tool = self.catalogue.tool(call.server, call.tool)
        return tool is not None and self.plan(tool).reads_labels

    def groups_of(self, action: str) -> tuple[str, ...]:
        """Return an action and its groups: a scope that names one of these can match it."""
        tool = self.catalogue.tools.get(action)
        return (action, *tool.action_groups) if tool else (action,)

    def judge(self, session: Session, facts: Facts, at: float) -> Ruling:
        """Return the policies' ruling on facts in a session; any doubt is a deny.

        `at` is unix seconds. Every question to the policies goes through this method. For a chain, it is called for
        each session.
        """
        try:
            beside = self._beside(session, facts)
        except _TermsError:
            return MISFIT_TERMS
        except ValueError:
            return MISFIT
        asked = self.slice(facts.action)
        return asked.ask(question_of(session, facts, at, asked.view), beside)

    def probe(self, session: Session, facts: Facts, at: float, probes: cedarpy.PolicySet) -> ProbeAnswer | None:
        """Return which permits match for the question of `judge`; None when it does not fit the schema."""
        try:
            beside = self._beside(session, facts)
        except ValueError:
            return None
        return self.slice(facts.action).probe(question_of(session, facts, at), beside, probes)

    def foresee(self, session: Session, facts: Facts, at: float, *, mapped: bool) -> Foreseen:
        """Return whether `judge` could permit calls whose arguments are not known, and which policies say so.

        `mapped` is True when the resource also depends on the arguments.
        """
        try:
            known = self.session_entities(session)
        except ValueError:
            return Foreseen(Visibility.NEVER)
        return self.slice(facts.action).foresee(question_of(session, facts, at), known, mapped=mapped)

    def session_entities(self, session: Session, *, speaker: str = "") -> SessionEntities:
        """Parse the entities of a session: its user, agent, groups and grants, and itself with its attributes.

        `speaker` is another user who asks about the session, for example an approver.
        Raise `ValueError` when the entities do not fit the schema.
        """
        return self._known(SessionContent.of(session, speaker))

    def _count(self, policies: Iterable[PolicySource]) -> None:
        """Find under which names calls are counted: those that any policy reads."""
        self.counted = CountedNames.of(policy.reads for policy in policies)
        self.takes_values = _compares_names(policies)
        # Whether a report of what came of a call can make a difference: by labels, or by values.
        reported = frozenset(name for name, label in self.labels.items() if label.reported)
        self.takes_reports = bool(reported or self.counted.done) or self.takes_values
        found = {
            action: sorted(self.counted.all.intersection(self.groups_of(action))) for action in self.catalogue.tools
        }
        self.counted_as: Mapping[str, tuple[str, ...]] = {
            action: tuple(names) for action, names in found.items() if names
        }
        # The actions of whose calls only a report says what they bring: values, whether they failed, or labels that the
        # overlay does not add anyway.
        self.reported_actions = frozenset(
            action
            for action in self.catalogue.tools
            if self.takes_values
            or not reported - self.widening <= self.added_labels.get(action, frozenset())
            or not self.counted.done.isdisjoint(self.counted_as.get(action, ()))
        )

    def _beside(self, session: Session, facts: Facts) -> SliceEntities:
        """Return the entities for a question. Raise `ValueError` when they do not fit the schema."""
        content = SessionContent.of(session, facts.speaker, facts.speaker_groups)
        asked, memory = self.slice(facts.action), self._memory
        if facts.speaker:
            # A step of a session is asked about once: to remember it would push out what calls need.
            return asked.beside(self._parsed(content))
        key = (self._mark, facts.action, content)
        return memory.of_actions.get(key) or memory.of_actions.keep(key, asked.beside(self._known(content)))

    def _known(self, content: SessionContent) -> SessionEntities:
        memory, key = self._memory.of_sessions, (self._mark, content)
        return memory.get(key) or memory.keep(key, self._parsed(content))

    def _parsed(self, content: SessionContent) -> SessionEntities:
        entities = {(one["uid"]["type"], one["uid"]["id"]): one for one in json.loads(content.entities_json)}
        if ("User", content.user) not in entities:
            raise ValueError("the session's user is not among its entities")
        vouched = json.loads(content.user_attributes_json)
        entities["User", content.user]["attrs"] |= vouched
        attributes = {name: getattr(content, name) for name in SESSION_ATTRIBUTES} | self._terms(content.terms_json)
        grants = [("Grant", grant) for grant in content.grants]
        made = [entity(("Session", content.id), attributes, grants), *(entity(g, {}, ()) for g in grants)]
        groups = [("UserGroup", name) for name in (*content.user_groups, *content.speaker_groups)]
        made += self.directory.closure([*references(vouched), *groups]).values()
        speaker = ("User", content.speaker)
        if content.speaker and speaker not in entities:
            made += self.directory.closure([speaker]).values() or [entity(speaker, {}, ())]
        for one in made:
            entities.setdefault(one.uid, dict(one.json))
        self._join(entities, ("User", content.user), content.user_groups)
        self._join(entities, speaker, content.speaker_groups)
        self._stack.require()
        return SessionEntities.parsed(entities, self._session_schema)

    def _join(self, entities: dict[Uid, dict[str, Any]], user: Uid, groups: tuple[str, ...]) -> None:
        """Make a user a member of those groups that the directory declares, besides their own."""
        parents = [uid_json(("UserGroup", name)) for name in groups if ("UserGroup", name) in self.directory.entities]
        if parents:
            entities[user] = {**entities[user], "parents": [*entities[user]["parents"], *parents]}

    def _terms(self, text: str) -> dict[str, Any]:
        """Return the attribute of a session that holds its terms, if the schema declares it."""
        if self.terms is None:
            if text == NO_TERMS:
                return {}
            # The approval bound terms, and no policy of this bundle can hold the session to them.
            raise _TermsError
        try:
            return {ATTRIBUTE: cedar_terms(self.terms, text)}
        except InvalidArgumentsError:
            raise _TermsError from None

    def fits_terms(self, terms_json: str) -> bool:
        """Say whether the terms of a session fit the schema; all calls of any other session are denied."""
        try:
            self._terms(terms_json)
        except _TermsError:
            return False
        return True

    def _variant(self) -> Bundle:
        other = copy.copy(self)
        other._within, other._slices, other._plans = {}, {}, {}  # noqa: SLF001 - a copy of this very class
        other._kept = KeptParts()  # noqa: SLF001 - the same
        other._mark, other._lock, other._origin = object(), threading.Lock(), self  # noqa: SLF001 - the same
        return other

    def _fits(self, entities: Iterable[Entity]) -> bool:
        try:
            cedarpy.Entities.from_json_str(json.dumps([one.json for one in entities]), self._session_schema)
        except ValueError:
            return False
        return True

    def _make_slice(self, action: str) -> Slice:
        tool, groups = self.catalogue.tools.get(action), self.groups_of(action)
        order = sorted({place for group in (None, *groups) for place in self._by_action.get(group, ())})
        ids = list(self.policies)
        resource = tool.resource_type if tool else "Session"
        listed = (self.policies[ids[place]] for place in order)
        # A policy that can only match another type of resource is never relevant.
        policies = tuple(policy for policy in listed if policy.resource_type in (None, resource))
        if self._origin is not None and (parsed := self._origin.slice(action)).policies == policies:
            return parsed.with_directory(self.directory)
        view = View.of([policy.reads for policy in policies]) if tool else EVERYTHING
        return Slice(
            action=action,
            groups=groups,
            resource_type=resource,
            policies=policies,
            schema=self._schema + self._declaration(action, tool, view),
            shared=self._session_schema,
            view=view,
            directory=self.directory,
            stack=self._stack,
            kept=self._kept,
        )

    def _declaration(self, action: str, tool: Tool | None, view: View) -> str:
        if tool is not None:
            return action_schema(tool, view)
        if action in SESSION_ACTIONS:
            return session_action(action)
        raise KeyError(action)


def _compares_names(policies: Iterable[PolicySource]) -> bool:
    """Say whether policies see where names come from: of a call's targets, or of those that a person is shown."""
    views = [View.of([policy.reads]) for policy in policies]
    return any(view.sees("targets") or view.sees("provenance") for view in views)


def _by_action(policies: Sequence[PolicySource]) -> dict[str | None, list[int]]:
    places: dict[str | None, list[int]] = {}
    for place, policy in enumerate(policies):
        for action in policy.actions if policy.actions is not None else (None,):
            places.setdefault(action, []).append(place)
    return places
