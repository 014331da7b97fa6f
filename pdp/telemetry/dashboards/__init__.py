"""The dashboard and the alert rules, as they are shipped."""

from __future__ import annotations

from importlib.resources import files


def dashboard() -> str:
    """Return the Grafana dashboard, as JSON."""
    return files(__name__).joinpath("grafana.json").read_text(encoding="utf-8")


def alert_rules() -> str:
    """Return the alert rules for Prometheus, as YAML."""
    return files(__name__).joinpath("alerts.yaml").read_text(encoding="utf-8")
