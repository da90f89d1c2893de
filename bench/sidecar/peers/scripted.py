"""Proxies written in Python and JavaScript, as one would write them by hand with the usual libraries."""

from __future__ import annotations

from pathlib import Path

from bench.sidecar import tools
from bench.sidecar.peers.base import NotInstalled, Peer

HERE = Path(__file__).parent


class _Script(Peer):
    """Gets: port, upstream's URL, file of tokens, CA."""

    def arguments(self) -> list[str]:
        setup = self.setup
        return [str(self.port), setup.url, str(setup.work / "tokens.json"), str(setup.upstream.ca)]

    def python(self, script: str, package: str) -> None:
        if not list(tools.VENV.glob(f"lib/python3*/site-packages/{package}")):
            raise NotInstalled(f"pip install {package}")
        self.launch([str(tools.VENV / "bin" / "python"), str(HERE / script), *self.arguments()])


class Aiohttp(_Script):
    """aiohttp's server and client, on uvloop."""

    name = "aiohttp"

    def start(self) -> None:
        self.python("aiohttp_proxy.py", "aiohttp")

    @staticmethod
    def version() -> str:
        return _version("aiohttp")


class Httpx(_Script):
    """Starlette on uvicorn (uvloop, httptools), and httpx."""

    name = "httpx"

    def start(self) -> None:
        self.python("httpx_proxy.py", "httpx")

    @staticmethod
    def version() -> str:
        return _version("httpx")


class Mitmproxy(_Script):
    """mitmdump in reverse mode with an addon."""

    name = "mitmproxy"

    def start(self) -> None:
        found = tools.MITM / "bin" / "mitmdump"
        if not found.exists():
            raise NotInstalled("pip install mitmproxy")
        setup, state = self.setup, self.setup.work / "mitm"
        args = [str(found), "-q", "--mode", f"reverse:{setup.url}", "--listen-host", "127.0.0.1", "-p", str(self.port)]
        args += ["-s", str(HERE / "mitm_addon.py"), "--set", f"confdir={state}", "--set", "stream_large_bodies=64k"]
        args += ["--set", f"ssl_verify_upstream_trusted_ca={setup.upstream.ca}", "--set", "connection_strategy=lazy"]
        self.launch(args, {"TOKENS": str(setup.work / "tokens.json")})

    @staticmethod
    def version() -> str:
        return _version("mitmproxy", tools.MITM)


class Undici(_Script):
    """Node's http server and undici's pool."""

    name = "undici"

    def start(self) -> None:
        node = tools.program("node")
        if node is None or not (tools.NODE / "node_modules" / "undici").exists():
            raise NotInstalled("node, and npm install undici")
        self.launch([node, str(HERE / "undici_proxy.cjs"), *self.arguments()],
                    {"NODE_PATH": str(tools.NODE / "node_modules")})  # fmt: skip

    @staticmethod
    def version() -> str:
        return f"Node {tools.version(tools.program('node') or 'node', '--version')}"


def _version(package: str, where: Path = tools.VENV) -> str:
    text = f"import importlib.metadata as m; print('{package}', m.version('{package}'))"
    return tools.version(str(where / "bin" / "python"), "-c", text)
