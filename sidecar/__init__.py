"""The sidecar: puts a tenant's credential into a colocated app's requests.

Pure decisions: `framing` and `body` (is it HTTP, and where does it end), `route` (whose credential), `door` (may this app),
`problem` (our own answers), `rewrite` (links back to us), `admission` (all of these in order). State: `grant`, `held`, `leases`.
Edges: `server` (gRPC), `engine` (sockets). `main` joins them.
"""
