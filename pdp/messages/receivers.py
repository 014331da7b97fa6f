"""The file of receivers: who is told, in which form, and of what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pdp.errors import ConfigurationError, Problem
from pdp.foundation.loopback import is_loopback
from pdp.foundation.ownership import read_secret
from pdp.foundation.yamltext import Section, unknown
from pdp.identity.callers import CALLER_ID, read_private
from pdp.messages.signing import secrets_of
from pdp.sessions.outbox import OutboxEvent, Topic

# Each has a thread of its own.
MOST_RECEIVERS: Final = 16
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_HOST: Final = re.compile(r"[a-z0-9._:-]{1,253}")
_URL: Final = re.compile(r"[\x21-\x7e]{1,2048}")
_SECRET_BYTES: Final = 4096
_DANGER: Final = "anyone could choose where messages go"


class Form(StrEnum):
    """The form of messages: signed JSON of our own, or the JSON that Slack and compatible chats take."""

    JSON = "json"
    CHAT = "chat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """One receiver: its name, the form of its messages, and what it is told of.

    The URL is in `url_file`, as it can be a secret; `secret_file` holds what signs. `private_hosts` are the hosts that
    may be at an address which is not public.
    """

    name: str
    form: Form
    url_file: Path
    secret_file: Path | None = None
    ca_file: str = ""
    events: frozenset[Topic] = frozenset(Topic)
    tenants: frozenset[str] = frozenset({"default"})
    private_hosts: frozenset[str] = frozenset()

    def wants(self, event: OutboxEvent) -> bool:
        """Say whether to tell it of an event; that messages were missed concerns all."""
        if event.topic is Topic.MESSAGES_MISSED:
            return True
        return event.topic in self.events and (not event.tenant or event.tenant in self.tenants)

    def url(self) -> str:
        """Return the URL as the file holds it now. Raise `ConfigurationError`, which does not quote it."""
        url = read_secret(self.url_file, _DANGER, most=_SECRET_BYTES).strip()
        try:
            parts = urlsplit(url)
            sound = bool(parts.hostname and _URL.fullmatch(url)) and parts.port != 0 and not parts.fragment
        except ValueError:
            sound = False
        if not sound or parts.username is not None or parts.scheme not in ("https", "http"):
            raise ConfigurationError(f"`{self.url_file}` must hold one https URL, without a user and a fragment")
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ConfigurationError(f"the URL in `{self.url_file}` is reached over the network and needs `https://`")
        return url

    def secrets(self) -> tuple[bytes, ...]:
        """Return what signs now; none for a chat. Raise `ConfigurationError`."""
        if self.secret_file is None:
            return ()
        text = read_secret(self.secret_file, "anyone could forge messages", most=_SECRET_BYTES)
        return secrets_of(str(self.secret_file), text)

    def require(self) -> None:
        """Raise `ConfigurationError` unless its files can be used."""
        self.url()
        self.secrets()


def read_receivers(path: Path) -> tuple[Receiver, ...]:
    """Read the file of receivers. Raise `ConfigurationError` with all problems."""
    section = read_private(path, _DANGER)
    problems = [problem for name, entry in section.items() for problem in _problems(section, name, entry)]
    if not section:
        problems = [section.problem("no receiver")]
    elif len(section) > MOST_RECEIVERS:
        problems.append(section.problem(f"{len(section)} receivers, more than {MOST_RECEIVERS}"))
    if problems:
        raise ConfigurationError("; ".join(map(str, problems)))
    receivers = tuple(_receiver(path.parent, name, entry) for name, entry in section.items())
    for receiver in receivers:
        receiver.require()
    return receivers


_KEYS: Final = ("form", "url_file", "secret_file", "ca_file", "events", "tenants", "private_hosts")
# The keys that hold lists, and what each entry must be.
_LISTS: Final = {"tenants": CALLER_ID, "private_hosts": _HOST}


def _problems(section: Section, name: str, entry: object) -> Iterator[Problem]:
    if not _NAME.fullmatch(name):
        yield section.problem(f"the name of a receiver must match {_NAME.pattern}, not `{name[:80]}`", name)
    if not isinstance(entry, Section):
        yield section.problem(f"`{name[:80]}` must be a mapping with `form` and `url_file`", name)
        return
    yield from entry.unknown_keys(_KEYS)
    form = entry.get("form")
    if form not in list(Form):
        yield entry.problem(f"`form` of `{name}` must be one of `json`, `chat`", "form")
    for key in ("url_file", "secret_file", "ca_file"):
        needed = key == "url_file" or (key == "secret_file" and form == Form.JSON)
        if key not in entry and needed:
            yield entry.problem(f"`{name}` needs `{key}`")
        elif key in entry and (not isinstance(entry[key], str) or not entry[key]):
            yield entry.problem(f"`{key}` of `{name}` must be the path of a file", key)
    if form == Form.CHAT and "secret_file" in entry:
        yield entry.problem(f"`{name}` has `secret_file`, but chats check no signature: the URL is the secret", name)
    yield from _list_problems(name, entry)


def _list_problems(name: str, entry: Section) -> Iterator[Problem]:
    for key in {"events", *_LISTS} & set(entry):
        values = entry[key]
        if not isinstance(values, list) or not values:
            yield entry.problem(f"`{key}` of `{name}` must be a list that is not empty", key)
            continue
        for value in values:
            if key == "events" and value not in list(Topic):
                yield entry.problem(f"`events` of `{name}`: {unknown('event', str(value), Topic)}", key)
            elif key in _LISTS and not (isinstance(value, str) and _LISTS[key].fullmatch(value)):
                yield entry.problem(f"`{key}` of `{name}` must hold texts that match {_LISTS[key].pattern}", key)


def _receiver(folder: Path, name: str, entry: Section) -> Receiver:
    lists = {key: frozenset(entry[key]) for key in _LISTS if key in entry}
    events = {"events": frozenset(map(Topic, entry["events"]))} if "events" in entry else {}
    return Receiver(
        name=name,
        form=Form(entry["form"]),
        # Relative to the file that names them.
        url_file=folder / entry["url_file"],
        secret_file=folder / entry["secret_file"] if "secret_file" in entry else None,
        ca_file=str(folder / entry["ca_file"]) if "ca_file" in entry else "",
        **lists,
        **events,
    )
