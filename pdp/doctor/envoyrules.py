"""The holes that one part of a configuration of Envoy can have: how each shows, and what closes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pdp.doctor.finding import Level
from pdp.doctor.gatewayfile import Node, part
from pdp.doctor.holes import Rule, on

# What the door takes in one question, with room for headers.
_MOST_BODY: Final = 3 * 1024 * 1024
_FIRST_ERROR: Final = 400
_ERRORS: Final = frozenset({"InternalServerError", "BadGateway", "ServiceUnavailable", "GatewayTimeout", "Forbidden"})


def _off(name: str) -> Callable[[Node], bool]:
    return lambda node: node.get(name) is not True


def _there(name: str) -> Callable[[Node], bool]:
    return lambda node: name in node


def _absent(name: str) -> Callable[[Node], bool]:
    return lambda node: not node.get(name)


def _no_error(node: Node) -> bool:
    code = part(node, "status_on_error").get("code")
    error = code in _ERRORS if isinstance(code, str) else isinstance(code, int) and code >= _FIRST_ERROR
    return code is not None and not error


def _size(node: Node) -> int:
    size = node.get("max_request_bytes", 0)
    return size if isinstance(size, int) else 0


BODY_RULES: Final = (
    Rule(
        on("allow_partial_message"),
        Level.PROBLEM,
        "`allow_partial_message` shows the door the beginning of a body, and sends on all of it",
        "set it to false; larger bodies are refused then",
    ),
    Rule(
        _off("pack_as_bytes"),
        Level.PROBLEM,
        "without `pack_as_bytes` the body comes as text that may have been changed: the door denies it",
        "set it to true",
    ),
    Rule(
        lambda node: not 0 < _size(node) <= _MOST_BODY,
        Level.PROBLEM,
        "`max_request_bytes` is not a size that the door takes",
        f"set it to at most {_MOST_BODY}, such as 262144",
    ),
)
FILTER_RULES: Final = (
    Rule(
        on("failure_mode_allow"),
        Level.PROBLEM,
        "`failure_mode_allow` sends every request on while the door is away",
        "set it to false",
    ),
    Rule(
        on("shadow_mode"),
        Level.PROBLEM,
        "`shadow_mode` asks about every request, and sends it on whatever the answer is",
        "take it out",
    ),
    Rule(_absent("grpc_service"), Level.PROBLEM, "the filter does not ask over gRPC", "set `grpc_service` to the door"),
    Rule(
        lambda node: node.get("transport_api_version") != "V3",
        Level.PROBLEM,
        "the filter does not speak version 3, which the door does",
        "set `transport_api_version: V3`",
    ),
    Rule(
        _absent("with_request_body"),
        Level.PROBLEM,
        "no `with_request_body`: the door does not see what is called, and denies it",
        "set `with_request_body` with `pack_as_bytes: true`",
    ),
    Rule(
        _there("filter_enabled"),
        Level.PROBLEM,
        "`filter_enabled` has the filter skip requests, by a setting that can change while Envoy runs",
        "take it out",
    ),
    Rule(
        _there("filter_enabled_metadata"),
        Level.PROBLEM,
        "`filter_enabled_metadata` has the filter skip requests by what another filter says",
        "take it out",
    ),
    Rule(
        lambda node: on("clear_route_cache")(node) or "clear_route_cache_headers" in node,
        Level.PROBLEM,
        "`clear_route_cache` and `clear_route_cache_headers` choose the route again after the decision",
        "take it out: the server that was asked about must be the one that is called",
    ),
    Rule(
        lambda node: "allowed_headers" in node or "disallowed_headers" in node,
        Level.PROBLEM,
        "the door does not see all headers, and so none that contradicts the message",
        "take `allowed_headers` and `disallowed_headers` out",
    ),
    Rule(
        _there("decoder_header_mutation_rules"),
        Level.PROBLEM,
        "`decoder_header_mutation_rules` can keep the door from removing handles, and from setting call tokens",
        "take it out",
    ),
    Rule(
        _off("encode_raw_headers"),
        Level.WARNING,
        "without `encode_raw_headers` the door denies each header and path in which an `!` or a comma may be something "
        "else",
        "set it to true",
    ),
    Rule(
        lambda node: not part(node, "grpc_service").get("timeout"),
        Level.WARNING,
        "no `grpc_service.timeout`: after 0.2 seconds a request is refused",
        "set it to how long a call may wait for its decision, such as 2s",
    ),
    Rule(
        _absent("status_on_error"),
        Level.WARNING,
        "no `status_on_error`: a door that is away looks like a deny (403)",
        "set `status_on_error: {code: ServiceUnavailable}`",
    ),
    Rule(
        _no_error,
        Level.PROBLEM,
        "`status_on_error` is no error, so that what was refused looks as if it had been done",
        "set `status_on_error: {code: ServiceUnavailable}`",
    ),
)
MANAGER_RULES: Final = (
    Rule(
        _off("normalize_path"),
        Level.PROBLEM,
        "paths are not normalized: `/a/../mcp` is one path here and another one behind",
        "set `normalize_path: true`",
    ),
    Rule(
        _off("merge_slashes"),
        Level.WARNING,
        "slashes are not merged: `//mcp` is one path here and may be another one behind",
        "set `merge_slashes: true`",
    ),
    Rule(
        lambda node: node.get("path_with_escaped_slashes_action") != "REJECT_REQUEST",
        Level.PROBLEM,
        "escaped slashes are not rejected: `%2f` is a slash for some servers",
        "set `path_with_escaped_slashes_action: REJECT_REQUEST`",
    ),
    Rule(
        _there("upgrade_configs"),
        Level.PROBLEM,
        "`upgrade_configs` lets a connection change its protocol: nothing on it is asked about",
        "take it out, or give such routes a listener of their own",
    ),
    Rule(
        lambda node: (
            part(node, "common_http_protocol_options").get("headers_with_underscores_action")
            not in ("REJECT_REQUEST", "DROP_HEADER")
        ),
        Level.WARNING,
        "headers with underscores pass: some servers take `mcp_name` for `mcp-name`",
        "set `common_http_protocol_options.headers_with_underscores_action: REJECT_REQUEST`",
    ),
    Rule(
        lambda node: not part(node, "common_http_protocol_options").get("max_stream_duration"),
        Level.WARNING,
        "streams that are open have no end, also when their session is over",
        "set `common_http_protocol_options.max_stream_duration`",
    ),
    Rule(
        lambda node: "x-pdp-session" in str(node.get("access_log", "")).lower(),
        Level.PROBLEM,
        "the access log holds the secret handles of sessions",
        "take `x-pdp-session` out of its format",
    ),
    Rule(
        lambda node: "x-pdp-session" in str(node.get("tracing", "")).lower(),
        Level.PROBLEM,
        "spans hold the secret handles of sessions",
        "take `x-pdp-session` out of the `custom_tags` of `tracing`",
    ),
    Rule(
        _there("local_reply_config"),
        Level.WARNING,
        "`local_reply_config` can change what the door and Envoy answer in place of the server",
        "see that no error becomes a success",
    ),
    Rule(
        lambda node: "route_config" not in node,
        Level.WARNING,
        "the routes come from elsewhere, and are not looked at",
        "look at what serves them: each needs `context_extensions`, and none may be disabled",
    ),
)
