"""Name each hole in a configuration of Envoy through which a request reaches a server unasked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pdp.calltokens.claims import HEADER as CALL_TOKEN
from pdp.doctor.envoyclusters import examine_clusters, filters_in_upstream
from pdp.doctor.envoyrules import BODY_RULES, FILTER_RULES, MANAGER_RULES
from pdp.doctor.finding import Finding, Level, fine, problem, warning
from pdp.doctor.gatewayfile import Node, of_type, part, parts, read_configuration
from pdp.doctor.holes import held, on, without_tls
from pdp.errors import ConfigurationError
from pdp.foundation.loopback import is_loopback, is_loopback_address

_FILTER, _ROUTER = "ext_authz.v3.ExtAuthz", "router.v3.Router"
_ROUTE_KEYS: Final = ({"server"}, {"table"})
_HOST_REWRITES: Final = frozenset({"host_rewrite_literal", "auto_host_rewrite"})
_CHOSEN_HOSTS: Final = frozenset({"host_rewrite_header", "host_rewrite_path_regex"})
_REPEATS: Final = ("retry_policy", "retry_policy_typed_config", "hedge_policy")
# Filters that answer by themselves what they have seen before.
_CACHES: Final = ("cache.v3.CacheConfig", "cache_v2.v3.CacheV2Config")
_OF_TOKENS: Final = frozenset({"call_token", "certificate"})
# Beginnings of headers: those by which servers of MCP go, by which some take another method or path, and by which they
# read the body.
_OF_THE_CALL: Final = ("mcp-", "x-http-method", "x-method-", "x-original-", "x-rewrite-", "content-", CALL_TOKEN)


def examine_envoy(path: Path) -> Iterator[Finding]:
    """Yield the findings about a configuration of Envoy, from a file."""
    try:
        document = read_configuration(path)
    except ConfigurationError as error:
        yield problem("file", str(error), "name the configuration that Envoy starts with")
        return
    if part(document, "dynamic_resources"):
        yield warning("file", "`dynamic_resources`: what comes from elsewhere is not looked at", "look there too")
    admin = part(document, "admin", "address", "socket_address").get("address")
    if admin is not None and not is_loopback(str(admin)):
        told = f"`admin` listens at `{admin}`: others can see and change how Envoy runs"
        yield problem("admin", told, "have it listen on loopback")
    managers = list(of_type(document, "HttpConnectionManager"))
    if not managers:
        yield problem("file", "there is no HTTP connection manager, so nothing is asked about", "name another file")
    for manager in managers:
        name = f"listener {manager.get('stat_prefix', '')}".strip()
        yield from held(name, manager, MANAGER_RULES, "paths have one form, and streams end")
        yield from _filters(name, manager, document)
    yield from examine_clusters(document, {one for manager in managers for one in _clusters_of(manager)})


def _filters(listener: str, manager: Node, document: Node) -> Iterator[Finding]:
    filters = parts(manager, "http_filters")
    kinds = [str(part(one, "typed_config").get("@type", "")) for one in filters]
    asking = [number for number, kind in enumerate(kinds) if kind.endswith(_FILTER)]
    if not asking:
        yield problem(listener, "there is no filter `ext_authz`: nothing is asked about", "add it before the router")
        return
    for number in asking:
        name = str(filters[number].get("name", ""))
        config = part(filters[number], "typed_config")
        body = part(config, "with_request_body")
        rules = (*FILTER_RULES, *(BODY_RULES if body else ()))
        # The rules about the body are about a part of the filter.
        yield from held(
            f"filter {name}", {**config, **body}, rules, "nothing is sent on without an answer about all of it"
        )
        if on("disabled")(filters[number]):
            yield problem(f"filter {name}", "the filter is disabled: nothing is asked about", "take `disabled` out")
        if on("is_optional")(filters[number]):
            told = (
                "`is_optional`: an Envoy that does not have the filter sends everything on, and nothing is asked about"
            )
            yield problem(f"filter {name}", told, "take `is_optional` out")
        if any(kind.endswith(_CACHES) for kind in kinds[:number]):
            yield problem(
                f"filter {name}", "a cache comes before it, and answers without asking", "have the cache after it"
            )
        yield from _after(name, filters[number + 1 :], kinds[number + 1 :])
        yield from _cluster(part(config, "grpc_service", "envoy_grpc").get("cluster_name"), document)
        direct = part(config, "grpc_service", "google_grpc")
        if direct and not (direct.get("channel_credentials") or is_loopback_address(str(direct.get("target_uri")))):
            yield _without_tls(f"filter {name}", direct.get("target_uri"), "`google_grpc` `channel_credentials`")
        yield from _routes(name, manager)


def _after(name: str, filters: list[Node], kinds: list[str]) -> Iterator[Finding]:
    for one, kind in zip(filters, kinds, strict=True):
        if not kind.endswith(_ROUTER):
            yield warning(
                f"filter {name}",
                f"`{one.get('name', '')}` comes after it, and can change what was asked about",
                "have `ext_authz` last before the router, unless that filter changes neither path, headers nor body",
            )
        for upstream in filters_in_upstream(part(one, "typed_config"), "upstream_http_filters"):
            yield warning(
                f"filter {name}",
                f"`{upstream}` of `upstream_http_filters` comes after it, and can change what was asked about",
                "take it out, unless it changes neither path, headers nor body",
            )


def _cluster(name: Any, document: Node) -> Iterator[Finding]:  # noqa: ANN401 - any YAML value
    for cluster in parts(part(document, "static_resources"), "clusters"):
        if cluster.get("name") == name and not cluster.get("transport_socket"):
            away = [one for one in _addresses(cluster) if not is_loopback(one)]
            if away:
                yield _without_tls(f"cluster {name}", away[0], "the cluster a `transport_socket`")


def _without_tls(check: str, address: object, place: str) -> Finding:
    return without_tls(check, address, f"give {place} with TLS, a certificate of its own and the door's authority")


def _addresses(value: Any) -> Iterator[str]:  # noqa: ANN401 - any YAML value
    if isinstance(value, dict):
        if "port_value" in value and isinstance(value.get("address"), str):
            yield value["address"]
        for one in value.values():
            yield from _addresses(one)
    elif isinstance(value, list):
        for one in value:
            yield from _addresses(one)


# Routes.


def _routes(name: str, manager: Node) -> Iterator[Finding]:
    config = part(manager, "route_config")
    if "vhds" in config:
        yield warning("routes", "`vhds`: what comes from elsewhere is not looked at", "look there too")
    for host in parts(config, "virtual_hosts"):
        if "matcher" in host:
            yield warning(f"host {host.get('name', '')}", "`matcher` is not looked at", "use `routes`")
        for number, route in enumerate(parts(host, "routes"), 1):
            match = part(route, "match")
            path = next((match[one] for one in ("path", "prefix", "path_separated_prefix") if one in match), number)
            check = f"route {path}"
            if "route" not in route:
                yield _answered(check, route)
                continue
            levels = [_of_filter(one, name) for one in (config, host, route)]
            inside = [_of_filter(one, name) for one in parts(part(route, "route", "weighted_clusters"), "clusters")]
            found = list(_route(check, [one for one in levels if one], [one for one in inside if one], route))
            found += _sent_on(check, config, host, route)
            yield from found or [fine(check, "asked about, for the server that it names")]


def _answered(check: str, route: Node) -> Finding:
    """Return the finding about a route that sends nothing on."""
    redirect = part(route, "redirect")
    if "host_redirect" in redirect:
        return warning(
            check,
            f"`redirect` sends agents to `{redirect['host_redirect']}`, where nothing may be asked about",
            "see that no server takes calls there unasked",
        )
    return fine(check, "Envoy answers by itself, and sends nothing on")


def _clusters_of(manager: Node) -> Iterator[str]:
    """Yield the clusters to which the routes of a manager lead."""
    for host in parts(part(manager, "route_config"), "virtual_hosts"):
        for route in parts(host, "routes"):
            chosen = part(route, "route")
            inside = parts(part(chosen, "weighted_clusters"), "clusters")
            yield from (
                str(one[key]) for one, key in ((chosen, "cluster"), *((one, "name") for one in inside)) if key in one
            )


def _of_filter(level: Node, name: str) -> Node:
    """Return what a route, or what is around it, says to the filter."""
    found = part(level, "typed_per_filter_config", name)
    # A wrapper that can disable a filter, too.
    return {**found, **part(found, "config")} if str(found.get("@type", "")).endswith(".FilterConfig") else found


def _route(check: str, levels: list[Node], inside: list[Node], route: Node) -> Iterator[Finding]:
    if any(on("disabled")(one) for one in (*levels, *inside)):
        yield problem(check, "the filter is disabled: nothing is asked about", "take `disabled` out")
        return
    said: dict[str, Any] = {}
    for one in (*levels, *inside):
        settings = part(one, "check_settings")
        said |= part(settings, "context_extensions")
        if {"grpc_service", "http_service"} & settings.keys():
            yield problem(check, "the route asks another service than the filter", "take it out of `check_settings`")
        if on("disable_request_body_buffering")(settings):
            yield problem(check, "the door does not see the body", "take `disable_request_body_buffering` out")
        if body := part(settings, "with_request_body"):
            yield from (found for found in held(check, body, BODY_RULES, "") if found.level is not Level.OK)
    if said.keys() - _OF_TOKENS not in _ROUTE_KEYS:
        yield problem(
            check,
            "the route names neither its `server` nor its `table`, or both: the door denies everything",
            "set `check_settings.context_extensions: {server: NAME}`",
        )
    if part(route, "route").get("upgrade_configs"):
        yield problem(check, "`upgrade_configs`: nothing is asked about after an upgrade", "take it out")
    if "table" in said and {"prefix_rewrite", "regex_rewrite", "path_rewrite"} & part(route, "route").keys():
        yield problem(check, "the path is rewritten after it was asked about", "take the rewrite out")
    match = part(route, "match")
    if "server" in said and ("path" not in match or match.get("case_sensitive") is False):
        yield warning(
            check,
            "the agent chooses the path that the server gets, by which it could take the call for another one",
            "match one `path`, and its case",
        )


def _sent_on(check: str, config: Node, host: Node, route: Node) -> Iterator[Finding]:
    """Yield what Envoy does with a request besides sending it on once, to the server that was asked about."""
    chosen = part(route, "route")
    if any("cluster_header" in one for one in (chosen, *parts(part(chosen, "weighted_clusters"), "clusters"))):
        yield problem(check, "`cluster_header`: a header of the agent chooses the server", "set `cluster`")
    if {"cluster_specifier_plugin", "inline_cluster_specifier_plugin"} & chosen.keys():
        yield warning(check, "a plugin chooses the server, and is not looked at", "set `cluster`")
    for name in _REPEATS:
        if any(name in one for one in (host, chosen)):
            yield warning(check, f"`{name}`: a call that was allowed once can run again unasked", "take it out")
    if any(one.get("request_mirror_policies") for one in (config, host, chosen)):
        yield warning(check, "`request_mirror_policies`: another server gets each allowed call, too", "take it out")
    for one in (config, host, route, *parts(part(chosen, "weighted_clusters"), "clusters")):
        if changed := sorted(_changed_by(one)):
            told = f"the header `{changed[0]}` is changed after the decision: the server may run another call"
            yield problem(check, told, "leave headers by which servers decide as they are")
    yield from _host_for(check, host, chosen)


def _host_for(check: str, host: Node, chosen: Node) -> Iterator[Finding]:
    """Yield the ways by which the agent chooses a host that the server could go by."""
    open_to_all = any("*" in str(one) for one in host.get("domains", ()))
    if on("append_x_forwarded_host")(chosen) and open_to_all:
        told = "`append_x_forwarded_host`: the server gets the agent's `Host`, which some take for the one to go by"
        yield warning(check, told, "take it out, or name all `domains` in full")
    if given := sorted(_CHOSEN_HOSTS & chosen.keys()):
        yield problem(check, f"`{given[0]}`: the agent chooses the `Host`", "set `host_rewrite_literal`")
    elif not _HOST_REWRITES & chosen.keys() and open_to_all:
        yield warning(
            check,
            "the agent chooses the `Host` that the server gets, by which it could take the call for another one",
            "set `host_rewrite_literal`, or name all `domains` in full",
        )


def _changed_by(level: Node) -> set[str]:
    """Return the headers by which servers decide, and which a route or what is around it sets or removes."""
    removed = level.get("request_headers_to_remove")
    given = {str(part(one, "header").get("key")).lower() for one in parts(level, "request_headers_to_add")}
    taken = {str(one).lower() for one in removed} if isinstance(removed, list) else set()
    return {one for one in given | taken if one.startswith(_OF_THE_CALL)}
