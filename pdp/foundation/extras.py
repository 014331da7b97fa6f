"""Which extra of the distribution brings a library that the small installation lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

DISTRIBUTION: Final = "agent-pdp"

# By the name that is imported. A test holds this against pyproject.toml.
EXTRA_OF: Final[Mapping[str, str]] = {
    "apsw": "server",
    "cachetools": "server",
    "cedarpy": "server",
    "cryptography": "server",
    "grpc_reflection": "server",
    "joserfc": "server",
    "jsonschema_rs": "server",
    "opentelemetry": "server",
    "prometheus_client": "server",
    "mcp": "demo",
    "pyarrow": "parquet",
}


def missing(error: ImportError) -> str | None:
    """Return what is not installed and what brings it, as one line; None where no extra does."""
    library = (error.name or "").partition(".")[0]
    extra = EXTRA_OF.get(library)
    return None if extra is None else f"`{library}` is not installed: pip install '{DISTRIBUTION}[{extra}]'"
