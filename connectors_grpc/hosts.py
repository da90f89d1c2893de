"""Where a credential may go: the hosts that it is sealed with."""

from __future__ import annotations

from urllib.parse import urlsplit

from connectors_grpc.domain.definition import Api
from connectors_grpc.inject import authority


def sealed_hosts(api: Api) -> tuple[str, ...]:
    """The authorities a credential is sealed with: the base URL's and the allowed hosts', as `inject.authority` writes them."""
    scheme = urlsplit(api.base_url).scheme
    every = (authority(api.base_url), *(authority(f"{scheme}://{host}") for host in api.allowed_hosts))
    return tuple(dict.fromkeys(every))
