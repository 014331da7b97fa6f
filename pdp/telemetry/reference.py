"""Write the tables of all names, for `README.md` and `pdp telemetry names`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pdp.telemetry import doornames, names
from pdp.telemetry.prometheus import labels, series


def reference() -> str:
    """Return the tables of the server's attributes and metrics, as Markdown."""
    return "\n".join(_lines(names.ATTRIBUTES, names.METRICS))


def door_reference() -> str:
    """Return the tables of a door's attributes and metrics, as Markdown."""
    return "\n".join(_lines(doornames.ATTRIBUTES, doornames.METRICS))


def _lines(attributes: Iterable[names.Attribute], metrics: Iterable[names.Metric]) -> Iterator[str]:
    yield "| attribute | on | what it says |"
    yield "|---|---|---|"
    for attribute in attributes:
        yield f"| `{attribute.name}` | {', '.join(attribute.on)} | {attribute.says} |"
    yield ""
    yield "| metric | kind | unit | labels | what it says | in Prometheus |"
    yield "|---|---|---|---|---|---|"
    for metric in metrics:
        shown = ", ".join(f"`{label}`" for label in metric.labels)
        translated = f"`{series(metric)[0]}`" + (
            f" by {', '.join(f'`{one}`' for one in labels(metric))}" if metric.labels else ""
        )
        yield f"| `{metric.name}` | {metric.kind} | `{metric.unit}` | {shown} | {metric.description} | {translated} |"
