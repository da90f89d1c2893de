"""The provider: nginx on one core, plain and TLS, keep-alive without end, under a CA that is thrown away afterwards."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.sidecar import tools
from bench.sidecar.cases import KIB
from bench.sidecar.proc import LOAD, Process
from tests.ports import free_port

ANSWER_HEADERS = {
    "Cache-Control": "no-store",
    "X-Request-Id": "9a1e9a4c-8a04-4c52-bb5c-2d3f4b8f21aa",
    "X-Content-Type-Options": "nosniff",
    "Strict-Transport-Security": "max-age=15552000",
    "Vary": "Accept-Encoding",
    "X-RateLimit-Remaining": "178",
    "X-Permitted-Cross-Domain-Policies": "none",
    "Referrer-Policy": "same-origin",
    "ETag": 'W/"1f4-k3m2n1b0v9c8x7z6"',
}
"""With nginx's own five: fourteen."""
CONF = """
worker_processes 1; daemon off; master_process off; pid {work}/upstream.pid; error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 2000000000; keepalive_timeout 600s; sendfile on; tcp_nopush on; tcp_nodelay on;
  client_max_body_size 0; client_body_buffer_size 64k; default_type application/json;
  client_body_temp_path {work}/body; proxy_temp_path {work}/p; fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u;
  scgi_temp_path {work}/s;
  server {{
    listen 127.0.0.1:{direct};
    location /~t0/notes/ {{ rewrite ^/~t0/notes(.*)$ $1 last; }}
    location /v1/ {{ {headers} return 200 '{body}'; }}
  }}
  server {{
    listen 127.0.0.1:{plain} backlog=1024; listen 127.0.0.1:{tls} ssl backlog=1024;
    ssl_certificate {work}/leaf.pem; ssl_certificate_key {work}/leaf.key; ssl_protocols TLSv1.2 TLSv1.3;
    location /v1/ {{ {headers} return 200 '{body}'; }}
    # Reads the whole body before it answers, as an API does; `return` alone would answer the head, and break uploads off.
    location /upload {{
      proxy_pass http://127.0.0.1:{plain}/v1/; proxy_pass_request_body off; proxy_set_header Content-Length "";
      client_body_buffer_size 8m;
    }}
    location /minimal {{ return 200 '{body}'; }}
    location /files/ {{ root {work}; }}
    location /echo {{ return 200 '$http_authorization'; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where it listens, and what signs it. `direct` takes the proxies' paths, for a figure without a proxy."""

    plain: int
    tls: int
    direct: int
    ca: Path
    process: Process

    def url(self, tls: bool) -> str:
        return f"https://127.0.0.1:{self.tls}" if tls else f"http://127.0.0.1:{self.plain}"

    def port(self, tls: bool) -> int:
        return self.tls if tls else self.plain


def start(work: Path) -> Upstream:
    """Raises: RuntimeError if there is no nginx."""
    nginx = tools.program("nginx")
    if nginx is None:
        raise RuntimeError("The upstream is nginx, which is not installed: apt-get install nginx-light")
    certificates(work)
    (work / "files").mkdir()
    (work / "files" / "256k").write_bytes(b"x" * 256 * KIB)
    (work / "files" / "8m").write_bytes(b"x" * 8192 * KIB)
    plain, tls, direct = free_port(), free_port(), free_port()
    headers = " ".join(f"add_header {name} '{value}';" for name, value in ANSWER_HEADERS.items())
    conf = work / "upstream.conf"
    conf.write_text(CONF.format(work=work, plain=plain, tls=tls, direct=direct, headers=headers, body="x" * 512))
    process = Process([nginx, "-c", str(conf), "-p", str(work)], work / "upstream.log", LOAD)
    process.listening(plain)
    return Upstream(plain, tls, direct, work / "ca.pem", process)


def certificates(work: Path) -> None:
    """A CA and a leaf for 127.0.0.1, good for a day: ca.pem, leaf.pem, leaf.key."""
    ca_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name.from_rfc4514_string("CN=bench CA")
    ca = (
        _signed(ca_name, ca_name, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    address = x509.SubjectAlternativeName(
        [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("upstream.test")]
    )
    leaf = (
        _signed(x509.Name.from_rfc4514_string("CN=upstream.test"), ca_name, leaf_key)
        .add_extension(address, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    (work / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (work / "leaf.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    (work / "leaf.key").write_bytes(
        leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def _signed(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )
