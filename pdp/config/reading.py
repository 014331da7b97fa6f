"""Read the settings: defaults, then a YAML file, then the environment, then flags; one name in three spellings.

The file, the environment, the flags and the documentation follow by reflection from what `settings` declares.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from pdp.config.contradictions import contradictions
from pdp.config.quoting import quoted, shown
from pdp.config.settings import Settings
from pdp.errors import BundleError, ConfigurationError
from pdp.foundation.ownership import read_own
from pdp.foundation.yamltext import Section, load_section, unknown
from pdp.limits import Limits

DEFAULT_FILE = "pdp.yaml"

# Variables with the prefix of settings that are not settings: for the client, the command line and the tests.
OTHER_VARIABLES: Mapping[str, str] = {
    "PDP_CONFIG": "the configuration file; without it `pdp.yaml`, if there is one",
    "PDP_ADDRESS": "the server that commands speak to; without it `server.address`",
    "PDP_CONTROL_ADDRESS": "where commands first try to end authority; without it and `PDP_ADDRESS`, the server's own",
    "PDP_TOKEN_FILE": "the file of the token that commands present",
    "PDP_TLS_ROOTS": "PEM file of the root certificates that commands trust, or `system`",
    "PDP_TLS_CERTIFICATE": "PEM file of the certificate that commands present",
    "PDP_TLS_KEY": "PEM file of the certificate's private key",
    "PDP_PLAINTEXT": "`true` makes commands speak plain text, only on loopback",
    "PDP_ASK_TOGETHER": "`false` makes clients and doors send every question by itself",
    "PDP_SESSION_HANDLE": "the secret handle of the session that commands ask about",
    "PDP_DEBUG": "`1` shows where an error comes from",
    "PDP_TEST_DATA": "the folder of test material",
}

# Kubernetes sets these in every container that can see a service named `pdp` or `pdp-…`.
_SERVICE_LINK = re.compile(
    r"PDP_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_WHOLE_NUMBER = re.compile(r"[+-]?\d{1,18}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
# gRPC takes numbers of 32 bits: twice a number of calls, and seconds in milliseconds.
_MOST_OF_A_LIMIT, _MOST_SECONDS_OF_A_LIMIT = 1_000_000_000, 2_000_000
# Former names of settings.
_RENAMED: Mapping[str, str] = {"server.callers": "callers.file"}

T = TypeVar("T")


class SettingRow(NamedTuple):
    """One setting for people: its three spellings, its default in written form, and its help."""

    name: str
    environment: str
    flag: str
    default: str
    help: str


def environment_name(name: str) -> str:
    """Return a setting's environment variable: `PDP_CACHE__MAX_TTL` for `cache.max_ttl`."""
    return "PDP_" + name.replace(".", "__").upper()


def flag_name(name: str) -> str:
    """Return a setting's flag: `--cache-max-ttl` for `cache.max_ttl`."""
    return "--" + name.replace(".", "-").replace("_", "-")


def describe() -> Iterator[SettingRow]:
    """Yield a row for every setting, in the order in which they are declared."""
    for setting in _known().values():
        default = ",".join(setting.default) if isinstance(setting.default, tuple) else shown(setting.default)
        yield SettingRow(
            name=setting.name,
            environment=environment_name(setting.name),
            flag=flag_name(setting.name),
            default=default,
            help=setting.help,
        )


def section_titles() -> Mapping[str, str]:
    """Return the subject of each section of the settings, in a sentence."""
    sections = ((field.name, field.default) for field in dataclasses.fields(Settings))
    return {
        name: (type(value).__doc__ or "").partition("\n")[0]
        for name, value in sections
        if dataclasses.is_dataclass(value)
    }


def load(
    *, environ: Mapping[str, str], flags: Mapping[str, str] | None = None, file: str | Path | None = None
) -> Settings:
    """Load the settings: defaults, then the file, then the environment, then the flags.

    `flags` maps names such as `cache.max_ttl` to text. Without `file`, the file in `PDP_CONFIG` is read, or else
    `pdp.yaml` if it exists. Raise `ConfigurationError` with one line for each problem.
    """
    reader = _read(environ, flags, file)
    settings = reader.settings()
    problems = reader.problems or list(contradictions(settings))
    if problems:
        raise ConfigurationError("\n".join(problems))
    return settings


def origin(
    name: str, *, environ: Mapping[str, str], flags: Mapping[str, str] | None = None, file: str | Path | None = None
) -> str:
    """Return the source of a value in `load`: a flag, a variable, a line of the file, or the default."""
    return _read(environ, flags, file).origins.get(name, f"the default of `{name}`")


def _read(environ: Mapping[str, str], flags: Mapping[str, str] | None, file: str | Path | None) -> _Reader:
    reader = _Reader()
    named = file or environ.get("PDP_CONFIG")
    # Also for a link to nowhere: a server must not go by defaults where settings are meant to be.
    if named or os.path.lexists(DEFAULT_FILE):
        reader.read_file(Path(named or DEFAULT_FILE))
    reader.read_environment(environ)
    reader.read_flags(flags or {})
    return reader


def dump(settings: Settings) -> str:
    """Return all settings as one line of text, for `restore` in another process."""
    return json.dumps({setting.name: setting.default for setting in _settings_of(settings, "")})


def restore(text: str) -> Settings:
    """Return the settings of a `dump`."""
    known = _known()
    return _build(Settings(), "", {name: _checked(known[name], value) for name, value in json.loads(text).items()})


class _Setting(NamedTuple):
    name: str
    kind: Any
    default: Any
    minimum: float
    maximum: float
    help: str


def _known() -> dict[str, _Setting]:
    return {setting.name: setting for setting in _settings_of(Settings(), "")}


def _settings_of(values: Settings | Limits | Any, prefix: str) -> Iterator[_Setting]:  # noqa: ANN401 - any section
    kinds = get_type_hints(type(values))
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            yield from _settings_of(value, f"{field.name}.")
        else:
            yield _Setting(
                name=prefix + field.name,
                kind=kinds[field.name],
                default=value,
                minimum=field.metadata.get("minimum", _lowest_limit(field.name)),
                maximum=field.metadata.get("maximum", _highest_limit(kinds[field.name])),
                help=field.metadata.get("help", f"upper bound: {field.name.replace('_', ' ')}"),
            )


def _lowest_limit(name: str) -> float:
    # Zero levels of delegation are a valid policy; a server without calls or streams is a mistake.
    return 0 if name == "delegation_depth" else 1


def _highest_limit(kind: type) -> float:
    return _MOST_SECONDS_OF_A_LIMIT if kind is float else _MOST_OF_A_LIMIT


class _Reader:
    """Collects values and problems from all sources; a later source takes precedence."""

    def __init__(self) -> None:
        self._known = _known()
        self._values: dict[str, Any] = {}
        self.problems: list[str] = []
        # For each setting, the source of its value.
        self.origins: dict[str, str] = {}

    def read_file(self, path: Path) -> None:
        try:
            top = load_section(str(path), read_own(path, "anyone could choose the server that tokens go to"))
        except ConfigurationError as error:
            self.problems.append(f"the configuration file: {error}")
        except BundleError as error:
            self.problems += [str(problem) for problem in error.problems]
        else:
            self._section(top, "")

    def read_environment(self, environ: Mapping[str, str]) -> None:
        names = {environment_name(name): name for name in self._known}
        for variable, text in sorted(environ.items()):
            if variable in names:
                self._take(names[variable], _from_text(self._known[names[variable]].kind, text), f"`{variable}`")
            elif variable.startswith("PDP_") and not _is_other(variable):
                renamed = {environment_name(old): environment_name(new) for old, new in _RENAMED.items()}
                self.problems.append(_unknown_setting(variable, (*names, *OTHER_VARIABLES), renamed))

    def read_flags(self, flags: Mapping[str, str]) -> None:
        for name, text in flags.items():
            if name in self._known:
                self._take(name, _from_text(self._known[name].kind, text), f"`{flag_name(name)}`")
            else:
                self.problems.append(_unknown_setting(name, self._known))

    def settings(self) -> Settings:
        return _build(Settings(), "", self._values)

    def _section(self, section: Section, prefix: str) -> None:
        sections = {name.partition(".")[0] for name in self._known if "." in name}
        for key, value in section.items():
            name = prefix + key
            if not prefix and key in sections:
                if isinstance(value, Section):
                    self._section(value, f"{key}.")
                elif value is not None:
                    self.problems.append(str(section.problem(f"`{key}` must hold settings, not {quoted(value)}", key)))
            elif not prefix and "." in key and key in self._known:
                parent, _, child = key.partition(".")
                self.problems.append(
                    str(section.problem(f"`{key}` must be written as `{child}` below `{parent}`", key))
                )
            elif name in self._known:
                self._take(name, value, str(section.problem(f"`{name}`", key)))
            else:
                self.problems.append(str(section.problem(_unknown_setting(name, (*self._known, *sections)), key)))

    def _take(self, name: str, value: Any, spelling: str) -> None:  # noqa: ANN401 - any written value
        setting = self._known[name]
        try:
            self._values[name] = _checked(setting, value)
            self.origins[name] = spelling
        except ValueError as error:
            self.problems.append(f"{spelling} {error}, not {quoted(value)}")


def _build(values: T, prefix: str, chosen: Mapping[str, Any]) -> T:
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(values):  # type: ignore[arg-type] # sections are dataclasses; a type cannot say so
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _build(value, f"{field.name}.", chosen)
        elif prefix + field.name in chosen:
            changes[field.name] = chosen[prefix + field.name]
    return dataclasses.replace(values, **changes)  # type: ignore[type-var] # the same


def _unknown_setting(name: str, known: Iterable[str], renamed: Mapping[str, str] = _RENAMED) -> str:
    return f"`{name}` is now called `{renamed[name]}`" if name in renamed else unknown("setting", name, known)


def _is_other(variable: str) -> bool:
    return variable in OTHER_VARIABLES or _SERVICE_LINK.fullmatch(variable) is not None


def _from_text(kind: Any, text: str) -> Any:  # noqa: ANN401 - types have no type in common
    """Return the value of a text, or the text itself when it is not valid, for `_checked` to refuse."""
    text = text.strip()
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind is int:
        return int(text) if _WHOLE_NUMBER.fullmatch(text) else text
    if kind is float:
        return float(text) if _NUMBER.fullmatch(text) else text
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",")] if text else []
    return text


def _checked(setting: _Setting, value: Any) -> Any:  # noqa: ANN401 - any written value
    """Return the value in the setting's type. Raise `ValueError` saying what it must be."""
    if get_origin(setting.kind) is Literal:
        choices = get_args(setting.kind)
        if not isinstance(value, str) or value not in choices:
            raise ValueError("must be one of " + ", ".join(f"`{choice}`" for choice in choices))
        return value
    if get_origin(setting.kind) is tuple:
        if not isinstance(value, list) or not all(isinstance(one, str) and one.isidentifier() for one in value):
            raise ValueError("must be a list of names")
        return tuple(value)
    return _KINDS[setting.kind](setting, value)


def _checked_bool(_: _Setting, value: Any) -> bool:  # noqa: ANN401 - any written value
    if not isinstance(value, bool):
        raise ValueError("must be `true` or `false`")  # noqa: TRY004 - a wrong value of a setting, whatever its type
    return value


def _checked_number(setting: _Setting, value: Any) -> Any:  # noqa: ANN401 - a number of the setting's kind
    kinds = int if setting.kind is int else int | float
    if not isinstance(value, kinds) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("must be a whole number" if setting.kind is int else "must be a number")
    if value < setting.minimum:
        raise ValueError(f"must be at least `{setting.minimum:g}`")
    if value > setting.maximum:
        raise ValueError(f"must be at most `{setting.maximum:.0f}`")
    return setting.kind(value)


def _checked_text(_: _Setting, value: Any) -> str:  # noqa: ANN401 - any written value
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("must be one line of text")
    return value


_KINDS: Mapping[Any, Callable[[_Setting, Any], Any]] = {
    bool: _checked_bool,
    int: _checked_number,
    float: _checked_number,
    str: _checked_text,
}
