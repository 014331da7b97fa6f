"""Holes in the configuration of Envoy that the page shows, each in a form that Envoy accepts."""

from __future__ import annotations

from typing import Final

from pdp.doctor import Level

PROBLEM, WARNING = Level.PROBLEM, Level.WARNING
_TYPE: Final = "type.googleapis.com/envoy.extensions"
_CLUSTERS, _GIT = "\n  clusters:", "\n    - name: git\n"
# The servers of a cluster: what stands there instead chooses them in another way.
_SERVERS: Final = """\
      load_assignment:
        cluster_name: git
        endpoints:
          - lb_endpoints:
              - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9000}}}
"""
_TCP: Final = f"""\
          - name: tcp
            typed_config:
              "@type": {_TYPE}.filters.network.tcp_proxy.v3.TcpProxy
              stat_prefix: raw
              cluster: CLUSTER
"""
_LISTENER: Final = f"""
    - name: raw
      address: {{socket_address: {{address: 127.0.0.1, port_value: 10001}}}}
      filter_chains:
        - filters:
{_TCP.replace("          ", "            ")}"""
_OPTIONS: Final = f"""
    - name: git
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": {_TYPE}.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{http_protocol_options: {{}}}}
"""
_MUTATION: Final = f"""- name: mutation
  typed_config:
    "@type": {_TYPE}.filters.http.header_mutation.v3.HeaderMutation
    mutations: {{request_mutations: [{{remove: mcp-name}}]}}
- name: codec
  typed_config: {{"@type": {_TYPE}.filters.http.upstream_codec.v3.UpstreamCodec}}
"""
_CACHE: Final = f"""- name: cache
  typed_config:
    "@type": {_TYPE}.filters.http.cache.v3.CacheConfig
    typed_config: {{"@type": {_TYPE}.http.cache.simple_http_cache.v3.SimpleHttpCacheConfig}}
"""
_FILTER, _ROUTER = "- name: envoy.filters.http.ext_authz\n", "filters.http.router.v3.Router\n"
_ROUTES, _CHECK = "- match: {path: /mcp}\n", "context_extensions: {server: git}\n"
_OF_FILTER, _CHOSEN = "failure_mode_allow: false\n", 'host_rewrite_literal: "127.0.0.1:9000"'
_DOMAINS = 'domains: ["*"]\n'


def _beside(old: str, new: str, width: int, *, before: bool = False) -> tuple[str, str]:
    """Return what is replaced by what to have lines of this width of indentation after, or before, a line."""
    lines = "".join(f"{' ' * width}{line}\n" for line in new.splitlines())
    return old, f"{lines.lstrip()}{' ' * width}{old}" if before else f"{old}{lines}"


# What is replaced by what, and what is found then.
HOLES: dict[str, tuple[tuple[str, str], Level, str]] = {
    "a door that is asked for show": (_beside(_OF_FILTER, "shadow_mode: true", 22), PROBLEM, "`shadow_mode` asks"),
    "another route for some headers": (
        _beside(_OF_FILTER, "clear_route_cache_headers: [pdp-call-token]", 22),
        PROBLEM,
        "`clear_route_cache_headers` choose",
    ),
    "a cache before it": (_beside(_FILTER, _CACHE, 18, before=True), PROBLEM, "a cache comes before it"),
    "filters of the router": (
        _beside(_ROUTER, f"upstream_http_filters:\n{_MUTATION}", 22),
        WARNING,
        "`mutation` of `upstream_http_filters`",
    ),
    "a route with a door of its own": (
        _beside(_CHECK, "grpc_service: {envoy_grpc: {cluster_name: git}}", 32),
        PROBLEM,
        "asks another service",
    ),
    "a route that asks by HTTP": (
        _beside(_CHECK, 'http_service: {server_uri: {uri: "http://a", cluster: git, timeout: 1s}}', 32),
        PROBLEM,
        "asks another service",
    ),
    "errors that become answers": (
        (
            "stat_prefix: agents",
            "stat_prefix: agents\n                local_reply_config: {mappers: [{filter: MAPPED, "
            "status_code: 200}]}".replace(
                "MAPPED", "{status_code_filter: {comparison: {op: GE, value: {default_value: 400, runtime_key: x}}}}"
            ),
        ),
        WARNING,
        "`local_reply_config`",
    ),
    "calls at several servers": (("timeout: 0s", "hedge_policy: {initial_requests: 2}"), WARNING, "`hedge_policy`"),
    "the same of a host": (
        _beside(_DOMAINS, "hedge_policy: {hedge_on_per_try_timeout: true}", 22),
        WARNING,
        "`hedge_policy`",
    ),
    "a call that is sent again, in another form": (
        (
            "timeout: 0s",
            'retry_policy_typed_config: {"@type": type.googleapis.com/envoy.config.route.v3.RetryPolicy}',
        ),
        WARNING,
        "`retry_policy_typed_config`",
    ),
    "a host from a header": ((_CHOSEN, "host_rewrite_header: x-to"), PROBLEM, "`host_rewrite_header`"),
    "a host from the path": (
        (_CHOSEN, "host_rewrite_path_regex: {pattern: {regex: '^/(.+)$'}, substitution: x}"),
        PROBLEM,
        "`host_rewrite_path_regex`",
    ),
    "a host beside the one that is set": (
        (_CHOSEN, f"{_CHOSEN}, append_x_forwarded_host: true"),
        WARNING,
        "`append_x_forwarded_host`",
    ),
    "a filter that need not be there": (_beside(_FILTER, "  is_optional: true", 18), PROBLEM, "`is_optional`"),
    "a plugin that chooses": (
        (
            "{cluster: git",
            (
                "{inline_cluster_specifier_plugin: {extension: {name: x, typed_config: {"
                f'"@type": {_TYPE}.router.cluster_specifiers.lua.v3.LuaConfig, '
                "source_code: {inline_string: 'function envoy_on_route(it) return \"git\" end'}}}}"
            ),
        ),
        WARNING,
        "a plugin chooses",
    ),
    "a redirect": (
        _beside(_ROUTES, "- match: {prefix: /a}\n  redirect: {host_redirect: git.example.org}", 24, before=True),
        WARNING,
        "sends agents to `git.example.org`",
    ),
    "a header that is set": (
        _beside(_ROUTES, "  request_headers_to_add: [{header: {key: Mcp-Param-To, value: '%REQ(x-to)%'}}]", 24),
        PROBLEM,
        "the header `mcp-param-to` is changed",
    ),
    "a header that a host takes away": (
        _beside(_DOMAINS, "request_headers_to_remove: [mcp-name]", 22),
        PROBLEM,
        "the header `mcp-name` is changed",
    ),
    "a header that a cluster among others sets": (
        (
            "{cluster: git",
            (
                "{weighted_clusters: {clusters: [{name: git, weight: 1, request_headers_to_add: "
                "[{header: {key: x-http-method-override, value: DELETE}}]}]}"
            ),
        ),
        PROBLEM,
        "the header `x-http-method-override` is changed",
    ),
    "any path below": (("{path: /mcp}", "{prefix: /mcp}"), WARNING, "the agent chooses the path"),
    "a path in any case": (("{path: /mcp}", "{path: /mcp, case_sensitive: false}"), WARNING, "chooses the path"),
    "handles in spans": (
        (
            "stat_prefix: agents",
            (
                "stat_prefix: agents\n                tracing: "
                "{custom_tags: [{tag: x, request_header: {name: X-PDP-Session}}]}"
            ),
        ),
        PROBLEM,
        "spans hold",
    ),
    "TCP beside it": ((_CLUSTERS, _LISTENER.replace("CLUSTER", "git") + _CLUSTERS), PROBLEM, "leads to the cluster"),
    "TCP to elsewhere": (
        (_CLUSTERS, _LISTENER.replace("CLUSTER", "pdp-door") + _CLUSTERS),
        WARNING,
        "nothing is asked about what it sends on",
    ),
    "TCP in another chain": (
        (
            "      filter_chains:\n",
            f"      default_filter_chain:\n        filters:\n{_TCP.replace('CLUSTER', 'git')}      filter_chains:\n",
        ),
        PROBLEM,
        "leads to the cluster",
    ),
    "a server from a header": (
        (
            _SERVERS,
            (
                "      type: ORIGINAL_DST\n      lb_policy: CLUSTER_PROVIDED\n"
                "      original_dst_lb_config: {use_http_header: true}\n"
            ),
        ),
        PROBLEM,
        "`x-envoy-original-dst-host`",
    ),
    "a server from the host": (
        (
            _SERVERS,
            (
                "      lb_policy: CLUSTER_PROVIDED\n      cluster_type:\n        name: forward\n        typed_config:\n"
                f'          "@type": {_TYPE}.clusters.dynamic_forward_proxy.v3.ClusterConfig\n'
                "          dns_cache_config: {name: forward}\n"
            ),
        ),
        PROBLEM,
        "the agent chooses the server",
    ),
    "a server from a header, in a cluster of clusters": (
        (
            f"{_GIT}{_SERVERS}",
            (
                f"{_GIT}      lb_policy: CLUSTER_PROVIDED\n      cluster_type:\n        name: aggregate\n"
                f'        typed_config: {{"@type": {_TYPE}.clusters.aggregate.v3.ClusterConfig, clusters: [inner]}}\n'
                "    - name: inner\n      type: ORIGINAL_DST\n      lb_policy: CLUSTER_PROVIDED\n"
            ),
        ),
        PROBLEM,
        "the agent chooses the server",
    ),
    "a server from a policy": (
        (
            _SERVERS,
            (
                f"{_SERVERS}      load_balancing_policy:\n        policies:\n          - typed_extension_config:\n"
                "              name: override\n              typed_config:\n"
                f'                "@type": {_TYPE}.load_balancing_policies.override_host.v3.OverrideHost\n'
                "                override_host_sources: [{header: x-to}]\n"
                "                fallback_policy: {policies: [{typed_extension_config: {name: turns, typed_config: "
                f'{{"@type": {_TYPE}.load_balancing_policies.round_robin.v3.RoundRobin}}}}}}]}}\n'
            ),
        ),
        PROBLEM,
        "the agent chooses the server",
    ),
    "filters of a cluster": (
        (_GIT, _OPTIONS + "".join(f"          {line}\n" for line in f"http_filters:\n{_MUTATION}".splitlines())),
        WARNING,
        "`http_filters` of a cluster",
    ),
    "a cluster that sends again": (
        (_GIT, f"{_OPTIONS}          retry_policy: {{retry_on: 5xx}}\n"),
        WARNING,
        "`retry_policy`",
    ),
    "a cluster with a mirror": (
        (_GIT, f"{_OPTIONS}          request_mirror_policies: [{{cluster: pdp-door}}]\n"),
        WARNING,
        "another server gets",
    ),
    "a cluster that takes trailers": (
        (_GIT, _OPTIONS.replace("{http_protocol_options: {}}", "{http2_protocol_options: {}}")),
        WARNING,
        "trailers of requests",
    ),
    "trailers over HTTP/1": (
        (_GIT, _OPTIONS.replace("_options: {}}", "_options: {enable_trailers: true}}")),
        WARNING,
        "trailers of requests",
    ),
    "the protocol of the agent": (
        (
            _GIT,
            _OPTIONS.replace(
                "explicit_http_config: {http_protocol_options: {}}",
                "use_downstream_protocol_config: {http2_protocol_options: {}}",
            ),
        ),
        WARNING,
        "trailers of requests",
    ),
    "an open administration": (
        (
            "static_resources:\n",
            "admin: {address: {socket_address: {address: 0.0.0.0, port_value: 0}}}\nstatic_resources:\n",
        ),
        PROBLEM,
        "`admin` listens",
    ),
}
# What is no hole.
SOUND: dict[str, tuple[str, str]] = {
    "a header by which no server decides": _beside(
        _ROUTES, "  request_headers_to_add: [{header: {key: authorization, value: Bearer x}}]", 24
    ),
    "an answer of Envoy's own": _beside(
        _ROUTES, "- match: {prefix: /a}\n  direct_response: {status: 200, body: {inline_string: well}}", 24, before=True
    ),
    "a redirect to the same host": _beside(
        _ROUTES, "- match: {prefix: /a}\n  redirect: {https_redirect: true}", 24, before=True
    ),
    "a cluster that takes no trailers": (_GIT, _OPTIONS),
    "an administration on loopback": (
        "static_resources:\n",
        "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\nstatic_resources:\n",
    ),
}
