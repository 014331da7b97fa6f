"""What is unusual about a session, in words: each sentence by one rule, from the sessions that the store keeps.

A rule is silent below its minimum history: a few sessions show no habit. What a person does not read as a surprise is
not said at all, so nothing here is a score, and no decision rests on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from pdp.model import Session, SessionState
from pdp.policy.budgets import Budget, budgets_of
from pdp.policy.tools.catalogue import Catalogue
from pdp.registry.past import Past

_DAY_SECONDS, _HOUR_SECONDS = 86400, 3600
_UNITS = ((_DAY_SECONDS, "day"), (_HOUR_SECONDS, "hour"), (60, "minute"))
_REFUSED = frozenset({SessionState.DENIED, SessionState.REVOKED})
_DESTRUCTIVE = "destructive"
_MOST_NAMES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusual:
    """One thing that is unusual, by the rule of this name.

    `count` is the number of sessions that it rests on, all of a time of `window` seconds; below `minimum` of them the
    rule is silent.
    """

    rule: str
    sentence: str
    window: float
    count: int
    minimum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A session as an approval would make it, with the actions in its scope, and what came before it.

    `now_at` is unix seconds.
    """

    session: Session
    actions: tuple[str, ...]
    of_user: Past
    of_agent: Past
    catalogue: Catalogue
    now_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule: `say` returns its sentences, each with the time and the number of sessions that it rests on."""

    name: str
    minimum: int
    say: Callable[[Asked], Iterable[tuple[str, float, int]]]


def unusual(asked: Asked) -> tuple[Unusual, ...]:
    """Return what is unusual about a session, in the order of the rules."""
    return tuple(
        Unusual(rule=rule.name, sentence=sentence, window=window, count=count, minimum=rule.minimum)
        for rule in RULES
        for sentence, window, count in rule.say(asked)
        if count >= rule.minimum
    )


def _refused_lately(asked: Asked) -> Iterator[tuple[str, float, int]]:
    since = asked.now_at - _DAY_SECONDS
    known = {one.id: one for one in chain(asked.of_user.roots, asked.of_agent.roots)}
    count = sum(one.state in _REFUSED and one.ended_at > since for one in known.values())
    of = f"`{asked.session.agent}` or `{asked.session.user}`"
    yield f"{count} sessions of {of} were denied or revoked in the last 24 hours", _DAY_SECONDS, count


def _denied_purpose(asked: Asked) -> Iterator[tuple[str, float, int]]:
    purpose = _folded(asked.session.purpose)
    known = {one.id: one for one in chain(asked.of_user.sessions, asked.of_agent.sessions)}
    denied = [one for one in known.values() if one.state is SessionState.DENIED and _folded(one.purpose) == purpose]
    if denied:
        latest = max(one.ended_at for one in denied)
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(latest))
        window = max(asked.of_user.seconds, asked.of_agent.seconds)
        yield f"a request with the same purpose was denied at {when}", window, len(denied)


def _new_agent(asked: Asked) -> Iterator[tuple[str, float, int]]:
    user, agent, past = asked.session.user, asked.session.agent, asked.of_user
    met = any(one.agent == agent for one in past.sessions) or any(one.user == user for one in asked.of_agent.sessions)
    if not met:
        count = len(past.roots)
        yield (
            f"`{agent}` asked for no session of `{user}` {_before(past)}; other agents asked for {count}",
            *_of(past, past.roots),
        )


def _first_destructive(asked: Asked) -> Iterator[tuple[str, float, int]]:
    approved = asked.of_user.approved
    tools = asked.catalogue.tools
    destructive = [action for action in asked.actions if action in tools and tools[action].risk == _DESTRUCTIVE]

    # A tool that has left the catalogue may have been destructive.
    def harmless(action: str) -> bool:
        return action in tools and tools[action].risk != _DESTRUCTIVE

    if destructive and all(harmless(action) for action in _actions_of(approved)):
        are = "is" if len(destructive) == 1 else "are"
        of = _those(approved, asked.session.user, "approved", asked.of_user)
        yield (
            f"{_names(destructive)} {are} destructive, and none of the {of} has a destructive tool",
            *_of(asked.of_user, approved),
        )


def _new_tools(asked: Asked) -> Iterator[tuple[str, float, int]]:
    approved = asked.of_user.approved
    known = _actions_of(approved)
    new = [action for action in asked.actions if action not in known]
    if new:
        are = "is" if len(new) == 1 else "are"
        of = _those(approved, asked.session.user, "approved", asked.of_user)
        yield f"{_names(new)} {are} in none of the {of}", *_of(asked.of_user, approved)


def _longer(asked: Asked) -> Iterator[tuple[str, float, int]]:
    approved = asked.of_agent.approved
    longest = max((one.duration for one in approved), default=0.0)
    if asked.session.duration > longest:
        of = _those(approved, asked.session.agent, "approved", asked.of_agent)
        lasts = f"it would last {_time(asked.session.duration)}"
        yield f"{lasts}; the longest of the {of} was for {_time(longest)}", *_of(asked.of_agent, approved)


def _budgets(asked: Asked) -> Iterator[tuple[str, float, int]]:
    approved = asked.of_agent.approved
    own = {one.name: one for one in budgets_of(asked.session.terms_json)}
    earlier = [{one.name: one for one in budgets_of(session.terms_json)} for session in approved]
    # INVARIANT: a session without a budget has no limit, which nothing can be above.
    always = set[str]().union(*earlier).intersection(*earlier)
    of = _those(approved, asked.session.agent, "approved", asked.of_agent)
    for name in sorted(always):
        highest = max((budgets[name] for budgets in earlier), key=_most)
        if name not in own:
            says = f"it has no limit `{name}`; the highest of the {of} was {highest.value(highest.most)}"
        elif own[name].most > highest.most:
            limit = f"its limit `{name}` is {own[name].value(own[name].most)}"
            says = f"{limit}; the highest of the {of} was {highest.value(highest.most)}"
        else:
            continue
        yield says, *_of(asked.of_agent, approved)


def _odd_hour(asked: Asked) -> Iterator[tuple[str, float, int]]:
    roots, at = asked.of_user.roots, asked.session.requested_at
    if all(_apart(one.requested_at, at) > _HOUR_SECONDS for one in roots):
        when = time.strftime("%H:%M UTC", time.gmtime(at))
        of = _those(roots, asked.session.user, "requested", asked.of_user)
        yield (
            f"it was requested at {when}; none of the {of} was within an hour of that time of day",
            *_of(asked.of_user, roots),
        )


RULES = (
    Rule(name="refused_lately", minimum=2, say=_refused_lately),
    Rule(name="denied_purpose", minimum=1, say=_denied_purpose),
    Rule(name="new_agent", minimum=5, say=_new_agent),
    Rule(name="first_destructive", minimum=5, say=_first_destructive),
    Rule(name="new_tools", minimum=5, say=_new_tools),
    Rule(name="longer", minimum=5, say=_longer),
    Rule(name="higher_budget", minimum=5, say=_budgets),
    Rule(name="odd_hour", minimum=20, say=_odd_hour),
)


def _of(past: Past, sessions: Sequence[Session]) -> tuple[float, int]:
    return past.seconds, len(sessions)


def _actions_of(sessions: Sequence[Session]) -> frozenset[str]:
    """Return the actions in the scope of any of these sessions. Many share one scope, which can be large."""
    scopes = {one.scope.id: one.scope.tools for one in sessions if one.scope}
    return frozenset[str]().union(*scopes.values())


def _most(budget: Budget) -> int:
    return budget.most


def _folded(purpose: str) -> str:
    return " ".join(purpose.split()).casefold()


def _apart(one: float, other: float) -> float:
    """Return the seconds between two times of day, the shorter way around."""
    apart = abs(one - other) % _DAY_SECONDS
    return min(apart, _DAY_SECONDS - apart)


def _names(actions: Sequence[str]) -> str:
    """Return the first actions, and how many more there are."""
    named = ", ".join(f"`{action}`" for action in actions[:_MOST_NAMES])
    more = len(actions[_MOST_NAMES:])
    return f"{named} and {more} more" if more else named


def _those(sessions: Sequence[Session], whose: str, what: str, past: Past) -> str:
    """Return how many sessions of a user or agent were `approved`, or `what` else, and in which time."""
    return f"{len(sessions)} sessions of `{whose}` {what} {_before(past)}"


def _before(past: Past) -> str:
    """Return the time in which a past is known, rounded down to whole days, hours or minutes."""
    seconds = round(past.seconds)
    unit, name = next((one for one in _UNITS if seconds >= 2 * one[0]), _UNITS[-1])
    return f"in the {seconds // unit} {name}s before"


def _time(seconds: float) -> str:
    """Return a length of time in its largest unit that divides it: `8 hours`, `90 minutes`, `1 day`."""
    unit, name = next((one for one in _UNITS if seconds % one[0] == 0), (1, "second"))
    whole = seconds / unit
    return f"{whole:g} {name}{'' if whole == 1 else 's'}"
