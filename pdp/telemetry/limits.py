"""The standard limits on attributes and links, which operators set with `OTEL_…_LIMIT`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pdp.errors import ConfigurationError
from pdp.telemetry.attributes import Attributes

# No span or log record of ours has more than this.
_MOST_ATTRIBUTES = 64
_DEFAULT = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeLimits:
    """The most attributes and links, and the most characters of a value (None: no limit)."""

    attributes: int = _DEFAULT
    characters: int | None = None
    links: int = _DEFAULT

    @classmethod
    def of_spans(cls, environ: Mapping[str, str]) -> Self:
        """Read the limits of spans. Raise `ConfigurationError` if one is not a number."""
        count = _limit(environ, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT")
        links = _limit(environ, "OTEL_SPAN_LINK_COUNT_LIMIT")
        return cls(
            attributes=_DEFAULT if count is None else count,
            characters=_limit(environ, "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
            links=_DEFAULT if links is None else links,
        )

    @classmethod
    def of_logs(cls, environ: Mapping[str, str]) -> Self:
        """Read the limits of log records. Raise `ConfigurationError` as for spans."""
        count = _limit(environ, "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT")
        length = "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT"
        return cls(
            attributes=_DEFAULT if count is None else count,
            characters=_limit(environ, length, "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
        )

    @property
    def bites(self) -> bool:
        """Say whether our attributes could exceed these limits."""
        return self.attributes < _MOST_ATTRIBUTES or self.characters is not None

    def applied(self, found: Attributes) -> tuple[Mapping[str, Any], int]:
        """Return the attributes within the limits, and how many are left out.

        As in the SDK, the first ones are left out.
        """
        if not self.bites:
            return found, 0
        dropped = max(0, len(found) - self.attributes)
        kept = list(found.items())[dropped:]
        return {name: _cut(value, self.characters) for name, value in kept}, dropped


def _cut(value: Any, characters: int | None) -> Any:  # noqa: ANN401 - any value of an attribute
    if isinstance(value, str):
        return value[:characters]
    return tuple(one[:characters] for one in value) if isinstance(value, tuple) else value


def _limit(environ: Mapping[str, str], *variables: str) -> int | None:
    for variable in variables:
        text = environ.get(variable, "").strip()
        if text:
            if not text.isascii() or not text.isdigit():
                raise ConfigurationError(f"`{variable}` must be a whole number of at least 0, not `{text}`")
            return int(text)
    return None
