"""The sidecar: puts a tenant's credential into a colocated app's requests.

Pure decisions: `framing` and `body` (is it HTTP, and where does it end), `route` (whose credential), `door` (may this app),
`problem` (our own answers), `rewrite` (links back to us), `admission` (all of these in order). State: `held`, `holds`, `leases`.
Edges: `server` (gRPC), `engine` (sockets). `main` joins them, `command` is its command line.
"""

from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec


def compiled() -> bool:
    """Whether the hot path runs compiled, or as Python (docs/adr/0010)."""
    spec = find_spec("sidecar.framing")
    return spec is not None and isinstance(spec.loader, ExtensionFileLoader)
