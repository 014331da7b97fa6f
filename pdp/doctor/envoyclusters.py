"""Where a configuration of Envoy sends on what was asked about, and which other ways lead there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pdp.doctor.finding import Finding, Level, problem, warning
from pdp.doctor.gatewayfile import Node, of_type, part, parts
from pdp.doctor.holes import Rule, held, on

_CODEC: Final = "upstream_codec.v3.UpstreamCodec"
_OPTIONS: Final = "upstreams.http.v3.HttpProtocolOptions"
# As Envoy names it, and as it numbers it.
_ORIGINAL: Final = ("ORIGINAL_DST", 4)


def examine_clusters(document: Node, names: set[str]) -> Iterator[Finding]:
    """Yield the findings about the clusters to which routes lead that are asked about."""
    clusters = parts(part(document, "static_resources"), "clusters")
    names = names | {inner for one in clusters if str(one.get("name")) in names for inner in _gathered(one)}
    for cluster in clusters:
        if (name := str(cluster.get("name"))) in names:
            yield from held(f"cluster {name}", cluster, _CLUSTER_RULES, "gets what was asked about, once")
    for kind in ("TcpProxy", "UdpProxyConfig"):
        for proxy in of_type(document, kind):
            check = f"proxy {proxy.get('stat_prefix', '')}".strip()
            if found := sorted(names & _clusters_in(proxy)):
                told = f"`{kind}` leads to the cluster `{found[0]}`, and nothing is asked about"
                yield problem(check, told, "take it out, or let nobody but Envoy's operator reach it")
            else:
                told = f"`{kind}`: nothing is asked about what it sends on"
                yield warning(check, told, "see that it leads to no server that routes lead to")


def filters_in_upstream(node: Node, name: str) -> list[str]:
    """Return the names of the filters in a list that see a request after the decision."""
    kinds = [(one, str(part(one, "typed_config").get("@type", ""))) for one in parts(node, name)]
    return [str(one.get("name", "")) for one, kind in kinds if not kind.endswith(_CODEC)]


def _clusters_in(value: Any) -> set[str]:  # noqa: ANN401 - any YAML value
    if isinstance(value, list):
        return set().union(*map(_clusters_in, value))
    if not isinstance(value, dict):
        return set()
    weighted = {str(one.get("name")) for one in parts(value, "clusters")}
    own = {value["cluster"]} if isinstance(value.get("cluster"), str) else set()
    return own | weighted | set().union(*map(_clusters_in, value.values()))


def _gathered(cluster: Node) -> set[str]:
    """Return the clusters of which a cluster is made."""
    named = part(cluster, "cluster_type", "typed_config").get("clusters")
    return {one for one in named if isinstance(one, str)} if isinstance(named, list) else set()


def _options(cluster: Node) -> Node:
    options = part(cluster, "typed_extension_protocol_options")
    found = (part(one) for one in options.values())
    return next((one for one in found if str(one.get("@type", "")).endswith(_OPTIONS)), {})


def _takes_trailers(cluster: Node) -> bool:
    """Say whether Envoy sends trailers on: over HTTP/1 only where it is told to."""
    options = _options(cluster)
    chosen = [part(options, name) for name in ("explicit_http_config", "use_downstream_protocol_config", "auto_config")]
    return (
        "http2_protocol_options" in cluster
        or any(name in options for name in ("use_downstream_protocol_config", "auto_config"))
        or any(name in one for one in chosen for name in ("http2_protocol_options", "http3_protocol_options"))
        or any(on("enable_trailers")(part(one, "http_protocol_options")) for one in (cluster, *chosen))
    )


def _chosen_by_the_agent(cluster: Node) -> bool:
    """Say whether the address comes from a connection, a header or the `Host`, which are the agent's."""
    kind = part(cluster, "cluster_type")
    names = (str(kind.get("name", "")), str(part(kind, "typed_config").get("@type", "")))
    return (
        cluster.get("type") in _ORIGINAL
        or any(one in name for one in ("original_dst", "dynamic_forward_proxy") for name in names)
        or any(of_type(cluster, "OverrideHost"))
    )


_CLUSTER_RULES: Final = (
    Rule(
        _chosen_by_the_agent,
        Level.PROBLEM,
        "the agent chooses the server: by the address that it connects to, a header such as "
        "`x-envoy-original-dst-host`, or the `Host`",
        "use a cluster whose servers are in the configuration",
    ),
    Rule(
        lambda node: bool(filters_in_upstream(_options(node), "http_filters")),
        Level.WARNING,
        "`http_filters` of a cluster come after the decision, and can change what was asked about",
        "take them out, unless they change neither path, headers nor body",
    ),
    Rule(
        lambda node: "retry_policy" in _options(node),
        Level.WARNING,
        "`retry_policy`: a call that was allowed once can run again unasked",
        "take it out",
    ),
    Rule(
        lambda node: bool(_options(node).get("request_mirror_policies")),
        Level.WARNING,
        "`request_mirror_policies`: another server gets each allowed call, too",
        "take it out",
    ),
    Rule(
        _takes_trailers,
        Level.WARNING,
        "trailers of requests are sent on, and the door does not see them",
        "see that the server takes no trailer for a header, or have Envoy speak HTTP/1 to it without `enable_trailers`",
    ),
)
