"""`pdp deployment`: container file, unit and manifests, for operators."""

from __future__ import annotations

import click

from pdp.cli.groups import Group
from pdp.deployment import container_file, kubernetes_manifests, settings_file, systemd_unit


@click.group(cls=Group)
def deployment() -> None:
    """Print files that deploy the server: container, systemd, Kubernetes."""


@deployment.command("container", epilog="Example:  pdp deployment container > Containerfile")
def print_container_file() -> None:
    """Print a Containerfile that builds an image of a checkout."""
    click.echo(container_file(), nl=False)


@deployment.command("systemd", epilog="Example:  pdp deployment systemd > /etc/systemd/system/pdp.service")
def print_systemd_unit() -> None:
    """Print the systemd unit."""
    click.echo(systemd_unit(), nl=False)


@deployment.command("kubernetes", epilog="Example:  pdp deployment kubernetes --replicas > kubernetes.yaml")
@click.option("--replicas", is_flag=True, help="Print those of three servers that share PostgreSQL, not of one.")
def print_kubernetes_manifests(*, replicas: bool) -> None:
    """Print the Kubernetes manifests."""
    click.echo(kubernetes_manifests(replicas=replicas), nl=False)


@deployment.command("settings", epilog="Example:  pdp deployment settings > /etc/pdp/pdp.yaml")
def print_settings_file() -> None:
    """Print the settings that the container and the unit expect."""
    click.echo(settings_file(), nl=False)
