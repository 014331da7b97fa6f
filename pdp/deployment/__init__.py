"""What runs the server elsewhere than in a terminal: a container, systemd, Kubernetes; as it is shipped."""

from importlib.resources import files


def container_file() -> str:
    """Return the instructions that make a container image of a checkout."""
    return _text("Containerfile")


def systemd_unit() -> str:
    """Return the unit of a service of systemd."""
    return _text("pdp.service")


def kubernetes_manifests(*, replicas: bool = False) -> str:
    """Return the manifests of a namespace with one server in it, or with three that share PostgreSQL, as YAML."""
    return _text("kubernetes-replicas.yaml" if replicas else "kubernetes.yaml")


def settings_file() -> str:
    """Return the settings that container and unit are made for, as YAML."""
    return _text("pdp.yaml")


def _text(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
