"""Read where telemetry is sent from the standard `OTEL_*` variables; refuse bad values before the server starts.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/. Times are milliseconds, as in the specification.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, cast
from urllib.parse import unquote, urlsplit

from pdp.errors import ConfigurationError, reason_of
from pdp.telemetry.limits import AttributeLimits
from pdp.telemetry.pipeline import QueueSettings

Exporter = Literal["otlp", "console", "none"]
Protocol = Literal["grpc", "http/protobuf"]
Signal = Literal["traces", "metrics", "logs"]
Compression = Literal["none", "gzip", "deflate"]
Temporality = Literal["cumulative", "delta", "lowmemory"]

_EXPORTERS = ("otlp", "console", "none")
_PROTOCOLS = ("grpc", "http/protobuf")
_TEMPORALITIES = ("cumulative", "delta", "lowmemory")
_EXEMPLARS = ("trace_based", "always_on", "always_off")
_COMPRESSIONS = {"grpc": ("none", "gzip"), "http/protobuf": ("none", "gzip", "deflate")}
_PORTS = {"grpc": 4317, "http/protobuf": 4318}
_DEFAULT_PORTS = {"http": 80, "https": 443, "": 4317}
_TIMEOUT_SECONDS = 10.0
_INTERVAL_SECONDS = 60.0
_MOST_DIGITS = 12
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A receiver of one signal. `target` is `host:port` for gRPC and a URL for HTTP; `timeout` is seconds."""

    signal: Signal
    protocol: Protocol
    target: str
    secure: bool
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 10.0
    compression: Compression = "none"
    certificate: str = ""
    client_key: str = ""
    client_certificate: str = ""


_QUEUE, _LIMITS = QueueSettings(), AttributeLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """Where and how each signal is sent. A signal whose exporter is `otlp` has an endpoint."""

    traces: Exporter = "none"
    metrics: Exporter = "none"
    logs: Exporter = "none"
    endpoints: Mapping[Signal, Endpoint] = field(default_factory=dict)
    span_queue: QueueSettings = _QUEUE
    log_queue: QueueSettings = _QUEUE
    metric_interval: float = 60.0
    temporality: Temporality = "cumulative"
    exemplars: bool = True
    span_limits: AttributeLimits = _LIMITS
    log_limits: AttributeLimits = _LIMITS

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, exporter: str = "") -> Self:
        """Read the variables; `exporter` overrides them for all signals.

        Without a variable for its exporter, a signal is sent by OTLP when an endpoint for it is set.
        `OTEL_SDK_DISABLED=true` overrides everything. Raise `ConfigurationError` for values that cannot work.
        """
        if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return cls()
        chosen = {signal: _exporter(environ, signal, exporter) for signal in ("traces", "metrics", "logs")}
        sent = cast("tuple[Signal, ...]", tuple(signal for signal, to in chosen.items() if to == "otlp"))
        preference, filtered = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "OTEL_METRICS_EXEMPLAR_FILTER"
        interval = "OTEL_METRIC_EXPORT_INTERVAL"
        return cls(
            traces=chosen["traces"],
            metrics=chosen["metrics"],
            logs=chosen["logs"],
            endpoints={signal: read_endpoint(environ, signal) for signal in sent},
            span_queue=_queue(environ, "OTEL_BSP"),
            log_queue=_queue(environ, "OTEL_BLRP"),
            metric_interval=_milliseconds(interval, environ.get(interval, ""), _INTERVAL_SECONDS),
            temporality=cast("Temporality", _word(_TEMPORALITIES, environ, preference, "cumulative")),
            exemplars=_word(_EXEMPLARS, environ, filtered, "trace_based") != "always_off",
            span_limits=AttributeLimits.of_spans(environ),
            log_limits=AttributeLimits.of_logs(environ),
        )


def read_endpoint(environ: Mapping[str, str], signal: Signal) -> Endpoint:
    """Return the receiver of a signal. Raise `ConfigurationError` for a bad value."""
    of_signal = _Variables(environ=environ, signal=signal)
    protocol = cast("Protocol", _one_of(_PROTOCOLS, *of_signal.chosen("PROTOCOL", "grpc")))
    name, text = of_signal.pick("ENDPOINT")
    own = name == of_signal.own("ENDPOINT")
    secure, host, path = _parsed(name, text or f"http://localhost:{_PORTS[protocol]}", protocol)
    if protocol == "grpc" and text and "://" not in text:
        secure = of_signal.pick("INSECURE")[1].lower() != "true"
    if protocol == "grpc":
        target = host
    else:
        # A signal's own endpoint is used unchanged; the common one is the root of all signals.
        path = path or "/" if own else f"{path.rstrip('/')}/v1/{signal}"
        target = f"{'https' if secure else 'http'}://{host}{path}"
    compressions = _COMPRESSIONS[protocol]
    return Endpoint(
        signal=signal,
        protocol=protocol,
        target=target,
        secure=secure,
        headers=_headers(*of_signal.pick("HEADERS")),
        timeout=_milliseconds(*of_signal.pick("TIMEOUT"), _TIMEOUT_SECONDS),
        compression=cast("Compression", _one_of(compressions, *of_signal.chosen("COMPRESSION", "none"))),
        certificate=of_signal.file("CERTIFICATE"),
        client_key=of_signal.file("CLIENT_KEY"),
        client_certificate=of_signal.file("CLIENT_CERTIFICATE"),
    )


def read_certificate(file: str) -> bytes | None:
    """Return the content of a PEM file, None without one.

    Raise `ConfigurationError` when it cannot be read.
    """
    if not file:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read `{file}`: {reason_of(error)}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variables:
    """The variables of a signal: `OTEL_EXPORTER_OTLP_TRACES_X` takes precedence over `OTEL_EXPORTER_OTLP_X`."""

    environ: Mapping[str, str] = field(repr=False)
    signal: Signal

    def own(self, suffix: str) -> str:
        """Return the name of the signal's own variable."""
        return f"OTEL_EXPORTER_OTLP_{self.signal.upper()}_{suffix}"

    def pick(self, suffix: str) -> tuple[str, str]:
        """Return the name and value of the variable that applies; empty when none is set."""
        common = f"OTEL_EXPORTER_OTLP_{suffix}"
        for name in (self.own(suffix), common):
            if value := self.environ.get(name, "").strip():
                return name, value
        return common, ""

    def chosen(self, suffix: str, default: str) -> tuple[str, str]:
        """Return the name and value of the variable that applies, in lower case."""
        name, value = self.pick(suffix)
        return name, value.lower() or default

    def file(self, suffix: str) -> str:
        """Return the file that a variable names, if any.

        Raise `ConfigurationError` when the file does not exist.
        """
        name, value = self.pick(suffix)
        if value and not Path(value).is_file():
            raise ConfigurationError(f"`{name}` names no file: `{value}`")
        return value


def _exporter(environ: Mapping[str, str], signal: str, chosen: str) -> Exporter:
    if chosen:
        found = _one_of(_EXPORTERS, "telemetry.exporter", chosen)
        # On a terminal, the log record of a decision would repeat its span.
        return cast("Exporter", "none" if signal == "logs" and found == "console" else found)
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    default = "otlp" if any(environ.get(endpoint) for endpoint in endpoints) else "none"
    name = f"OTEL_{signal.upper()}_EXPORTER"
    return cast("Exporter", _one_of(_EXPORTERS, name, environ.get(name, "").strip() or default))


def _word(known: tuple[str, ...], environ: Mapping[str, str], name: str, default: str) -> str:
    return _one_of(known, name, environ.get(name, "").strip().lower() or default)


def _one_of(known: tuple[str, ...], name: str, value: str) -> str:
    if value not in known:
        choices = ", ".join(f"`{choice}`" for choice in known)
        raise ConfigurationError(f"`{name}` cannot be `{value}`; it is one of {choices}")
    return value


def _parsed(name: str, text: str, protocol: Protocol) -> tuple[bool, str, str]:
    """Return whether an endpoint is secure, its host with port, and its path."""
    example = f"http://localhost:{_PORTS[protocol]}"
    try:
        url = urlsplit(text if "://" in text or protocol != "grpc" else f"//{text}")
        host, port = url.hostname, url.port
    except ValueError:
        raise ConfigurationError(f"`{name}` is no URL: `{text}`; write it like `{example}`") from None
    if url.scheme not in (("http", "https", "") if protocol == "grpc" else ("http", "https")):
        raise ConfigurationError(f"`{name}` must begin with `http://` or `https://`, not `{text}`")
    if not host or url.username is not None or url.query or url.fragment or any(map(str.isspace, text)):
        raise ConfigurationError(f"`{name}` names no receiver: `{_without_secret(text)}`; write it like `{example}`")
    if protocol == "grpc" and url.path not in ("", "/"):
        raise ConfigurationError(f"`{name}` has a path, which gRPC has no use for: `{text}`; write it like `{example}`")
    shown = f"[{host}]" if ":" in host else host
    if protocol == "grpc":
        return url.scheme == "https", f"{shown}:{port or _DEFAULT_PORTS[url.scheme]}", ""
    return url.scheme == "https", shown if port is None else f"{shown}:{port}", url.path


def _headers(name: str, text: str) -> dict[str, str]:
    """Return the headers in `key=value,key=value`; values can be URL-encoded."""
    headers = {}
    for pair in filter(None, map(str.strip, text.split(","))):
        key, equals, value = pair.partition("=")
        key, value = unquote(key).strip().lower(), unquote(value).strip()
        # A value is never shown: receivers authenticate a sender by it.
        if not equals or not _HEADER_NAME.fullmatch(key) or not value.isascii() or not value.isprintable():
            raise ConfigurationError(f"`{name}` must be `name=value` pairs with commas between them")
        headers[key] = value
    return headers


def _queue(environ: Mapping[str, str], prefix: str) -> QueueSettings:
    known = _QUEUE
    return QueueSettings(
        capacity=_count(environ, f"{prefix}_MAX_QUEUE_SIZE", known.capacity),
        batch=_count(environ, f"{prefix}_MAX_EXPORT_BATCH_SIZE", known.batch),
        delay=_milliseconds(f"{prefix}_SCHEDULE_DELAY", environ.get(f"{prefix}_SCHEDULE_DELAY", ""), known.delay),
    )


def _count(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip()
    return _whole(name, text) if text else default


def _milliseconds(name: str, text: str, default: float) -> float:
    return _whole(name, text.strip()) / 1000 if text.strip() else default


def _whole(name: str, text: str) -> int:
    # No thread can wait for longer, and no text of more digits becomes a number.
    if not text.isascii() or not text.isdigit() or len(text) > _MOST_DIGITS or not int(text):
        raise ConfigurationError(
            f"`{name}` must be a whole number of at least 1 and below 10^{_MOST_DIGITS}, not `{text}`"
        )
    return int(text)


def _without_secret(text: str) -> str:
    before, at, behind = text.rpartition("@")
    return f"{before.partition('://')[0]}://…@{behind}" if at else text
