"""The layout of the record's entries: a line for the event, and below it the line of its reasons.

Long texts and long lists are shortened here, for people; `--json` and `pdp audit show` have them in full.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from pdp.audit.values import DECISION, Found
from pdp.cli.output import STYLES, wrapped
from pdp.cli.sessions.view import duration_text
from pdp.foundation.printable import visible
from pdp.observer import EventKind
from pdp.record.fields import facts_of, object_of, resource_of, text_of, whole_number

Record = Mapping[str, Any]

_MILLISECONDS, _SECONDS = 23, 19
_EVENT_CHARACTERS = 10
_INDENT = 4
# Of a list, and of a text: the length that a person sees at a glance.
_FEW, _SHORT_CHARACTERS, _DIGEST_CHARACTERS = 3, 120, 20
# Digests and ids that mean nothing to a person, and positions in traces.
_HIDDEN = frozenset({"scope_id", "scope_before", "request_digest", "traceparent", "tracelink", "bundle_version"})
# What a call changed, and what policies saw of earlier ones: lists, and numbers by name.
_LISTS = ("labels_added", "done", "ancestor_done")
_NUMBERS = ("debits", "counts", "ancestor_counts")
# The answer of the policies; the entry that follows has the question.
_DECIDED = frozenset({"action", "basis", "policies", "errors", "principal", "grants"})


def event_name(record: Record) -> str:
    """Return the event in a word: `allow`, `deny`, `approved`, `bundle.activated`."""
    if text_of(record, "kind") == DECISION:
        return text_of(record, "outcome")
    return text_of(record, "kind").removeprefix("session.")


def resource_name(record: Record) -> str:
    """Return the resource that a call was mapped to, or its digest; else empty."""
    name = resource_of(record)
    return f"{text_of(record, 'resource_type')}::{name}" if name else ""


def subject(record: Record) -> str:
    """Return the subject of an entry: tool and resource, or who changed the session."""
    if text_of(record, "kind") == DECISION:
        tool = f"{text_of(record, 'server')}/{text_of(record, 'tool')}"
        resource = resource_name(record)
        return f"{tool} on {resource}" if resource else tool
    caller = text_of(record, "caller_id")
    return f"by {caller}" if caller else ""


def reason(record: Record) -> str:
    """Return an entry's reasons: a call's basis and policies, or an event's facts."""
    if text_of(record, "kind") == DECISION:
        named_ones = [*_list(record, "policies"), *_list(record, "errors")]
        detail = text_of(record, "detail")
        lists = {name: added for name in _LISTS if (added := _list(record, name))}
        pairs = map(_pair, [*object_of(record, "arguments").items(), *lists.items(), *_numbers(record)])
        return " ".join([text_of(record, "basis"), *named_ones, *([f"({detail})"] if detail else []), *pairs])
    facts = facts_of(record)
    if text_of(record, "kind") == EventKind.SESSION_DECIDED:
        said = {name: value for name, value in facts.items() if name in _DECIDED}
        return " ".join([str(facts.get("outcome", "")), *map(_pair, sorted(said.items()))])
    caller = text_of(record, "caller_id")
    shown = {name: value for name, value in facts.items() if value and name not in _HIDDEN and value != caller}
    return " ".join(map(_pair, sorted(shown.items())))


def _numbers(record: Record) -> Iterator[tuple[str, object]]:
    for field in _NUMBERS:
        yield from ((f"{field}.{name}", value) for name, value in object_of(record, field).items())


def tail_line(record: Record) -> str:
    """Return one record as one line, whatever text it holds."""
    parts = (record["time"], event_name(record).ljust(5), subject(record), _who(record), reason(record))
    return visible("  ".join(part for part in parts if part))


def print_entries(found: Iterable[Found], *, with_who: bool = False) -> None:
    """Print entries in order; `with_who` adds the user, agent or caller of each."""
    console = Console(highlight=False)
    for record in (one.record() for one in found):
        _print_head(record, console)
        below = [reason(record), *([_who(record)] if with_who else []), text_of(record, "id")]
        for line in _lines("  ".join(part for part in below if part), console, _INDENT):
            click.echo(f"{' ' * _INDENT}{line}")


def named(values: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = len(values) - _FEW
    return " ".join(values[:_FEW]) + (f" … and {more} more" if more > 0 else "")


def fact_text(name: str, value: object) -> str:
    """Return a fact in short."""
    if isinstance(value, list):
        return named([str(one) for one in value])
    if isinstance(value, dict):
        return " ".join(map(_pair, sorted(value.items())))
    text = value if isinstance(value, str) else json.dumps(value)
    if text.startswith(("sha256:", "hmac-sha256:")):
        return text[:_DIGEST_CHARACTERS] + "…"
    if name == "duration" and (seconds := whole_number(text)) is not None:
        return duration_text(seconds)
    if name.endswith(("_at", "_before")):
        return text[:_SECONDS] + "Z"
    return text if len(text) <= _SHORT_CHARACTERS else text[: _SHORT_CHARACTERS - 1] + "…"


def _pair(item: tuple[str, object]) -> str:
    return f"{item[0]}={fact_text(*item)}"


def _print_head(record: Record, console: Console) -> None:
    time, event = visible(f"{record['time'][:_MILLISECONDS]}Z"), event_name(record)
    shown = f"{visible(event):<{_EVENT_CHARACTERS}}"
    first, *rest = _lines(subject(record), console, len(time) + len(shown) + 4) or [""]
    if console.is_terminal:
        console.print(Text.assemble(time, "  ", (shown, STYLES.get(event, "")), "  ", first))
    else:
        click.echo(f"{time}  {shown}  {first}".rstrip())
    for line in rest:
        click.echo(f"{' ' * _INDENT}{line}")


def _lines(text: str, console: Console, aside: int) -> list[str]:
    """Return a text in lines that leave room for `aside` characters on a terminal.

    Elsewhere it is one line.
    """
    if not console.is_terminal:
        return [visible(text)] if text else []
    return wrapped(visible(text), console.width - aside) if text else []


def _who(record: Record) -> str:
    return " ".join(filter(None, (text_of(record, name) for name in ("user", "agent", "session_id"))))


def _list(record: Record, name: str) -> list[str]:
    value = record.get(name)
    return [str(one) for one in value] if isinstance(value, list) else []
