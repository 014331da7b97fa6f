"""Ask the Cedar engine about one action: in strict mode, with every entity present; any error is a deny."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import cedarpy

from pdp.foundation.jsontext import digest
from pdp.foundation.quickcaches import GenerationCache, SmallCache
from pdp.model import Ask, Basis, Obligation, Ruling, Visibility
from pdp.policy.analysis import BELOW
from pdp.policy.answers import ProbeAnswer, policy_error, probe_answer_of, ruling_of
from pdp.policy.binding import Answer, answer_of
from pdp.policy.directory import Directory, Uid, entity, uid_json
from pdp.policy.entities import SessionEntities, SliceEntities
from pdp.policy.inparts import PolicySets
from pdp.policy.policysource import PolicySource
from pdp.policy.question import Question
from pdp.policy.reading import Reading
from pdp.policy.stack import StackCheck
from pdp.policy.view import HAS, View

# A parsed policy takes about 5 KB, and parsing it again about 25 µs. With 10,000 policies for 500 tools, a tenth of
# them for a whole risk group, the slices of all actions would hold 176,000 policies and take 900 MB.
MOST_PARSED = 40_000

# The rulings that are remembered of one slice, by the engine's answer.
_MOST_RULINGS = 8

K = TypeVar("K")
V = TypeVar("V")


class Foreseen(NamedTuple):
    """Whether calls with unknown arguments could be permitted, and the obligations of those that always are.

    `policies` are the ids of those that say so, sorted: the permits of an ALWAYS, the forbids of a NEVER or those that
    could not be evaluated, and of a DEPENDS those that look at the call, with the forbids that a person can lift. A
    NEVER without any is one for lack of a permit.
    """

    visibility: Visibility
    policies: tuple[str, ...] = ()
    obligations: tuple[Obligation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """The schema and policies of a slice, parsed by the engine, and the last rulings, by the answers without errors.

    A ruling names all policies that it rests on. So rulings go with the policies, whose number is bounded.
    """

    schema: cedarpy.Schema
    policies: PolicySets
    rulings: SmallCache[Answer, Ruling] = field(default_factory=lambda: SmallCache(_MOST_RULINGS))


@dataclass(frozen=True, slots=True, kw_only=True)
class _KnownPart:
    """The policies that can be evaluated without the arguments, and the ids and effects of the others."""

    policies: tuple[PolicySource, ...]
    set: PolicySets
    aside: frozenset[str]
    effects_aside: frozenset[str]
    permits: _Permits | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Permits:
    """The permits among some policies, which decide when a person has lifted all forbids that match."""

    policies: tuple[PolicySource, ...]
    set: PolicySets

    @classmethod
    def of(cls, policies: Iterable[PolicySource]) -> _Permits:
        found = tuple(policy for policy in policies if policy.effect == "permit")
        return cls(policies=found, set=_policy_set(found))


class KeptParts:
    """The parsed parts of the slices of one bundle: whole slices and their permits by action, and their known parts.

    INVARIANT: slices of one action in one bundle differ only in their directory.
    """

    def __init__(self) -> None:
        self.whole: GenerationCache[str, Parsed] = GenerationCache(MOST_PARSED)
        self.permits: GenerationCache[str, _Permits] = GenerationCache(MOST_PARSED)
        self.known: GenerationCache[Slice, _KnownPart] = GenerationCache(MOST_PARSED)


class Slice:
    """The policies that can match one action, and the schema of only that action, which declares what `view` shows.

    `reading` says what the policies can read of a call, and whether their answer may be remembered; `counted` what they
    read of earlier calls. Schema and policies are parsed for the first question, and again when `kept`, which all
    slices of a bundle share, has dropped them.
    `shared` is the schema without the actions of tools; all slices of a bundle share it too.
    """

    def __init__(
        self,
        *,
        action: str,
        groups: tuple[str, ...],
        resource_type: str,
        policies: tuple[PolicySource, ...],
        schema: str,
        shared: cedarpy.Schema,
        view: View,
        directory: Directory,
        stack: StackCheck,
        kept: KeptParts,
    ) -> None:
        self._stack = stack
        self._shared = shared
        self._kept = kept
        self.action = action
        self.policies = policies
        self._schema_text = schema
        self.view = view
        self.sees_targets = view.sees("targets")
        self.counted = view.counted
        self._resource_type = resource_type
        self._mapped = resource_type not in ("Server", "Session")
        self._server: Uid = ("Server", action.partition("/")[0])
        # Steps of a session itself are never asked about again.
        self._liftable = {policy.id: policy for policy in policies if policy.step_up and resource_type != "Session"}
        self._named = frozenset(uid for policy in policies for uid in policy.entities)
        self._actions = _action_entities(groups)
        self._uid = uid_json(("Action", action))
        self._parsing = threading.Lock()
        self._stand_beside(directory)

    def with_directory(self, directory: Directory) -> Slice:
        """Return the same policies with another directory; both share what was parsed."""
        other = copy.copy(self)
        other._stand_beside(directory)  # noqa: SLF001 - a copy of this very class
        return other

    def _stand_beside(self, directory: Directory) -> None:
        self._directory = directory
        named = {uid: one.json for uid, one in directory.closure(self._named).items()}
        # These are added call by call: one that is the resource of a call must be below the call's server.
        self._loose = {uid: one for uid, one in named.items() if self._mapped and uid[0] == self._resource_type}
        self._fixed = {uid: one for uid, one in named.items() if uid not in self._loose} | self._actions
        above = directory.servers_above.get(self._resource_type, ())
        self._others = {f"{BELOW}{name}" for name in above} - {f"{BELOW}{self._server[1]}"}
        self.reading = Reading.of([(policy.id, self._reads(policy), policy.moments) for policy in self.policies])

    def _reads(self, policy: PolicySource) -> frozenset[str] | None:
        """Return what a policy reads of a call of this action.

        The call's resource is below the server of the call; only the directory can place it below another one.
        """
        if policy.reads is None:
            return None
        known = {read for read in policy.reads if read.startswith((BELOW, HAS))}
        return (policy.reads - known) | ({"resource"} if known & self._others else set())

    @property
    def is_parsed(self) -> bool:
        """Say whether the next question need not wait until the policies are parsed."""
        return self._kept.whole.get(self.action) is not None

    def _parsed(self) -> Parsed:
        return self._once(self._kept.whole, self.action, self._parse)

    def _parse(self) -> tuple[Parsed, int]:
        # Others have the interpreter meanwhile, as they do while the policies are parsed.
        schema = cedarpy.Schema.from_str(self._schema_text, release_gil=True)
        return Parsed(schema=schema, policies=_policy_set(self.policies)), len(self.policies)

    def _once(self, kept: GenerationCache[K, V], key: K, parse: Callable[[], tuple[V, int]]) -> V:
        """Return what is kept; else parse it, and keep it by the number of its policies.

        Threads that need it at the same time wait for one of them: they run while that one parses, and would all parse.
        """
        found = kept.get(key)
        if found is None:
            self._stack.require()
            with self._parsing:
                found = kept.get(key)
                if found is None:
                    found, policies = parse()
                    # One more, for what is beside the policies.
                    kept.put(key, found, policies + 1)
        return found

    def beside(self, known: SessionEntities) -> SliceEntities:
        """Parse the session's entities with those that every call of this action needs: action, groups, server.

        Raise `ValueError` when the entities do not fit the schema.
        """
        added = dict(self._fixed)
        if self._resource_type == "Session":
            return self._joined(known, added)
        added[self._server] = entity(self._server, {}, ()).json
        if self._mapped or self._server not in known.entities:
            return self._joined(known, added)
        # The resource of an unmapped call is its server: this entity replaces the one that the session knows.
        whole = {**added, **known.entities, self._server: added[self._server]}
        handle = cedarpy.Entities.from_json_str(json.dumps([*whole.values()]), self._parsed().schema)
        return SliceEntities(session=known, handle=handle, entities=whole)

    def _joined(self, known: SessionEntities, added: Mapping[Uid, Mapping[str, Any]]) -> SliceEntities:
        fresh = [one for uid, one in added.items() if uid not in known.entities]
        handle = known.handle.with_added_json_str(json.dumps(fresh), self._parsed().schema)
        return SliceEntities(session=known, handle=handle, entities={**added, **known.entities})

    def ask(self, question: Question, beside: SliceEntities) -> Ruling:
        """Decide. A problem with policies, entities or the context is never raised: it is a deny by `policy_error`."""
        self._stack.require()
        self._require_present(question, beside.session)
        try:
            handle = self._entities(question.resource, beside)
            parsed, request = self._parsed(), self._request(question)
            answer = parsed.policies.ask(request, handle, self._unproven(parsed))
        except ValueError:
            # The engine's message quotes entities, so it must not be shown.
            return policy_error((), "the entities do not fit the schema")
        ruling = parsed.rulings.get(answer)
        if ruling is None:
            ruling = ruling_of(answer, self.policies)
            ruling = ruling if answer.errors else parsed.rulings.keep(answer, ruling)
        if not self._can_be_lifted(ruling):
            return ruling
        # INVARIANT: no other forbid has matched, and no policy has failed. So this asks the policies without exactly
        # the forbids that are to be lifted.
        permits = self._permits()
        otherwise = ruling_of(permits.set.ask(request, handle), permits.policies)
        return self._asking(ruling, otherwise, question.session_id) if otherwise.allowed else ruling

    def _unproven(self, parsed: Parsed) -> cedarpy.Schema | None:
        """Return the schema that a request must still be held against; None for a call.

        INVARIANT: the request of a call fits. Principal and resource have the types of its action, the arguments and
        the facts of callers were typed by the declarations from which the schema was written, and the rest is ours.
        """
        return parsed.schema if self._resource_type == "Session" else None

    def _can_be_lifted(self, ruling: Ruling) -> bool:
        """Return whether a ruling rests on forbids that a person can lift, and on nothing else."""
        # A shortcut, since this runs for each call and most actions have none.
        return bool(self._liftable) and ruling.basis is Basis.FORBID and self._liftable.keys() >= set(ruling.policies)

    def _asking(self, ruling: Ruling, otherwise: Ruling, session_id: str) -> Ruling:
        lifted = [self._liftable[name] for name in ruling.policies]
        asks = tuple(
            Ask(session_id, one.id, digest(one.text.encode("utf-8")), one.step_up, one.step_up_run) for one in lifted
        )
        return replace(ruling, basis=Basis.APPROVAL_REQUIRED, asks=asks, otherwise=otherwise)

    def _permits(self) -> _Permits:
        return self._once(self._kept.permits, self.action, self._parse_permits)

    def _parse_permits(self) -> tuple[_Permits, int]:
        found = _Permits.of(self.policies)
        return found, len(found.policies)

    def probe(self, question: Question, beside: SliceEntities, probes: cedarpy.PolicySet) -> ProbeAnswer | None:
        """Return which of a set of permits match, under the schema and the entities that `ask` uses.

        They may only name entities that this slice names. None when the question does not fit the schema.
        """
        self._stack.require()
        self._require_present(question, beside.session)
        try:
            handle = self._entities(question.resource, beside)
            answer = answer_of(self._request(question), probes, handle, self._parsed().schema)
        except ValueError:
            return None
        return probe_answer_of(answer) if answer.decided else None

    def foresee(self, question: Question, known: SessionEntities, *, mapped: bool) -> Foreseen:
        """Return whether calls of this action could be allowed, without knowing their arguments.

        `mapped` is True when the resource depends on the arguments. Policies that read what is not yet known are set
        aside; the others are evaluated.
        """
        self._stack.require()
        self._require_present(question, known)
        part = self._known_part(mapped=mapped)
        try:
            entities = self._listed(question.resource, known)
        except ValueError:
            return Foreseen(Visibility.NEVER)
        # Without the schema: the context has no input yet, and the policies of this part do not read it.
        request = self._request(question)
        ruling = ruling_of(part.set.ask(request, entities), part.policies)
        if part.permits is not None and self._can_be_lifted(ruling):
            # A person can lift what forbids it, and nobody knows yet whether one will.
            permits = part.permits
            otherwise = ruling_of(permits.set.ask(request, entities), permits.policies)
            if otherwise.allowed or "permit" in part.effects_aside:
                return Foreseen(Visibility.DEPENDS, tuple(sorted(part.aside.union(ruling.policies))))
            return Foreseen(Visibility.NEVER, ruling.policies)
        return _foreseen(ruling, part)

    def _listed(self, resource: Uid, known: SessionEntities) -> cedarpy.Entities:
        """Return the entities of `beside` and `_entities` without parsing the schema of this action.

        A listing asks about every action once, and parsing all schemas would take most of its time. The shared schema
        declares the same entities except the action itself, which has no attributes.
        """
        added = {**self._fixed, self._server: entity(self._server, {}, ()).json}
        if self._mapped:
            added |= {uid: one.json for uid, one in self._directory.closure([resource]).items()} | self._loose
            placed = {resource: _below(self._server, known.entities.get(resource) or added.get(resource), resource)}
        else:
            placed = {self._server: added[self._server]}
        others = {uid: one for uid, one in {**added, **placed}.items() if uid not in self._actions}
        if placed.keys() <= known.entities.keys():
            # This entity replaces the one that the session knows.
            whole = {**others, **known.entities, **placed}
            handle = cedarpy.Entities.from_json_str(json.dumps([*whole.values()]), self._shared)
        else:
            fresh = [one for uid, one in others.items() if uid not in known.entities]
            handle = known.handle.with_added_json_str(json.dumps(fresh), self._shared)
        return handle.with_added_json_str(json.dumps([*self._actions.values()]))

    def _known_part(self, *, mapped: bool) -> _KnownPart:
        # The key is the slice itself: with another directory, the known part may differ.
        return self._once(self._kept.known, self, partial(self._parse_known_part, mapped=mapped))

    def _parse_known_part(self, *, mapped: bool) -> tuple[_KnownPart, int]:
        unknown = (
            "context.input",
            "context.opaque",
            "context.caller",
            "context.targets",
            "context.counts",
            "context.done",
            *(("resource",) if mapped else ()),
        )
        reads = {policy.id: self._reads(policy) for policy in self.policies}
        aside = {name for name, read in reads.items() if read is None or any(r.startswith(unknown) for r in read)}
        policies = tuple(policy for policy in self.policies if policy.id not in aside)
        found = _KnownPart(
            policies=policies,
            set=_policy_set(policies),
            aside=frozenset(aside),
            effects_aside=frozenset(policy.effect for policy in self.policies if policy.id in aside),
            permits=_Permits.of(policies) if any(policy.id in self._liftable for policy in policies) else None,
        )
        return found, len(policies)

    def _request(self, question: Question) -> dict[str, Any]:
        return {
            "principal": uid_json(("User", question.user)),
            "action": self._uid,
            "resource": uid_json(question.resource),
            "context": json.dumps(self.view.shown(question.context)),
        }

    def _entities(self, resource: Uid, beside: SliceEntities) -> cedarpy.Entities:
        """Return the entities of one call: add its resource, and all that the resource reaches."""
        if not self._mapped:
            return beside.handle
        added = {uid: one.json for uid, one in self._directory.closure([resource]).items()} | self._loose
        # INVARIANT: the resource of a call is below the server of the call, whatever the directory says.
        placed = _below(self._server, beside.entities.get(resource) or added.get(resource), resource)
        if resource in beside.entities:
            # The session's entities take precedence: about its user they may say more than the directory.
            whole = {**added, **beside.entities, resource: placed}
            return cedarpy.Entities.from_json_str(json.dumps([*whole.values()]), self._parsed().schema)
        added[resource] = placed
        fresh = [one for uid, one in added.items() if uid not in beside.entities]
        return beside.handle.with_added_json_str(json.dumps(fresh), self._parsed().schema)

    def _require_present(self, question: Question, known: SessionEntities) -> None:
        # INVARIANT: Cedar skips a hierarchy test on an absent entity without an error, forbids included.
        there = known.entities
        if not (
            ("User", question.user) in there
            and ("Agent", question.agent) in there
            and ("Session", question.session_id) in there
        ):
            raise AssertionError("user, agent and session must be among the entities")


def _foreseen(ruling: Ruling, part: _KnownPart) -> Foreseen:
    """Return what a ruling of the known part of some policies says about the whole."""
    if ruling.basis in (Basis.FORBID, Basis.POLICY_ERROR):
        return Foreseen(Visibility.NEVER, ruling.policies or ruling.errors)
    if ruling.basis is Basis.PERMIT and not part.effects_aside:
        return Foreseen(Visibility.ALWAYS, ruling.policies, ruling.obligations)
    if ruling.basis is Basis.DEFAULT_DENY and "permit" not in part.effects_aside:
        return Foreseen(Visibility.NEVER)
    return Foreseen(Visibility.DEPENDS, tuple(sorted(part.aside)))


def _policy_set(policies: Iterable[PolicySource]) -> PolicySets:
    return PolicySets.of([policy.text for policy in policies])


def _below(server: Uid, one: Mapping[str, Any] | None, uid: Uid) -> Mapping[str, Any]:
    if one is None:
        return entity(uid, {}, (server,)).json
    return {**one, "parents": [*one["parents"], uid_json(server)]}


def _action_entities(groups: tuple[str, ...]) -> dict[Uid, Mapping[str, Any]]:
    action, *above = (("Action", group) for group in groups)
    return {action: entity(action, {}, above).json, **{group: entity(group, {}, ()).json for group in above}}
