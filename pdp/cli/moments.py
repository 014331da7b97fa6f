"""Read times as people write them on a command line: durations, and moments in UTC."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

_DAY_SECONDS = 86400
_DURATION = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s?)?")
_AGO = re.compile(r"(?:(\d{1,4})d)?((?:\d{1,6}h)?(?:\d{1,6}m)?(?:\d{1,9}s)?)")


def duration(text: str) -> float:
    """Read a duration such as `90s`, `1h30m` or `5` (seconds). For click's `type`."""
    match = _DURATION.fullmatch(text)
    parts = match.groups() if match else ()
    seconds = sum(int(part or 0) * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not seconds:
        raise click.BadParameter(f"`{text}` is not a duration such as `90s`, `15m` or `1h30m`")
    return float(seconds)


def moment(text: str) -> float:
    """Read a moment in UTC: RFC 3339, a date, or a duration ago. For click's `type`.

    Durations are such as `2h` or `7d`.
    """
    ago = _AGO.fullmatch(text)
    if ago and text:
        return time.time() - int(ago[1] or 0) * _DAY_SECONDS - (duration(ago[2]) if ago[2] else 0.0)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"`{text}` is not a time such as `2026-01-05T10:00:00Z`, `2026-01-05` or `2h`"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
