"""`pdp telemetry`: dashboard, alert rules and names, for operators."""

from __future__ import annotations

import click

from pdp.cli.groups import Group
from pdp.telemetry.dashboards import alert_rules, dashboard
from pdp.telemetry.reference import door_reference, reference


@click.group(cls=Group)
def telemetry() -> None:
    """Print the dashboard, the alert rules and the names of telemetry."""


@telemetry.command("dashboard", epilog="Example:  pdp telemetry dashboard > pdp-dashboard.json")
def print_dashboard() -> None:
    """Print the Grafana dashboard, ready to import."""
    click.echo(dashboard(), nl=False)


@telemetry.command("alerts", epilog="Example:  pdp telemetry alerts > /etc/prometheus/rules/pdp.yaml")
def print_alerts() -> None:
    """Print the alert rules for Prometheus."""
    click.echo(alert_rules(), nl=False)


@telemetry.command("names", short_help="Print all names.", epilog="Example:  pdp telemetry names | less")
def print_names() -> None:
    """Print the tables of all attributes and metrics, with their names in Prometheus."""
    click.echo(f"{reference()}\n\nAt the doors:\n\n{door_reference()}")
