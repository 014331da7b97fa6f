"""Write the tables of all names, for `README.md` and `pdp telemetry names`."""

from __future__ import annotations

from collections.abc import Iterator

from pdp.telemetry import names
from pdp.telemetry.prometheus import labels, series


def reference() -> str:
    """Return the tables of attributes and metrics, as Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "| attribute | on | what it says |"
    yield "|---|---|---|"
    for attribute in names.ATTRIBUTES:
        yield f"| `{attribute.name}` | {', '.join(attribute.on)} | {attribute.says} |"
    yield ""
    yield "| metric | kind | unit | labels | what it says | in Prometheus |"
    yield "|---|---|---|---|---|---|"
    for metric in names.METRICS:
        shown = ", ".join(f"`{label}`" for label in metric.labels)
        translated = f"`{series(metric)[0]}`" + (
            f" by {', '.join(f'`{one}`' for one in labels(metric))}" if metric.labels else ""
        )
        yield f"| `{metric.name}` | {metric.kind} | `{metric.unit}` | {shown} | {metric.description} | {translated} |"
