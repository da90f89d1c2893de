"""Policies of a state directory that an older version made, brought up to this one's, for they lie in the Vault."""

import logging

from connectors_grpc.embedded import api
from connectors_grpc.embedded.errors import EmbeddedVaultError
from connectors_grpc.embedded.layout import StateLayout
from connectors_grpc.embedded.setup import SERVER, UPKEEP, Role
from connectors_grpc.embedded.wayin import logged_in

log = logging.getLogger(__name__)


def renew_policies(layout: StateLayout) -> None:
    """Give each role the policy that this version has for it. Blocking.

    A directory without the role for it, or whose role is refused, goes on with the policies it has.
    """
    try:
        with logged_in(layout, UPKEEP) as token:
            for role in (SERVER, UPKEEP):
                _renew(layout, role, token)
    except EmbeddedVaultError:
        log.warning("openbao_policies_not_renewed")


def _renew(layout: StateLayout, role: Role, token: str) -> None:
    path = f"sys/policies/acl/{role.name}"
    found = api.call(layout.socket, "GET", path, token=token)
    if found.status == api.OK and found.body["data"]["policy"] == role.policy:
        return
    if api.call(layout.socket, "POST", path, {"policy": role.policy}, token).status in (api.OK, 204):
        log.info("openbao_policy_renewed")
    else:
        log.warning("openbao_policies_not_renewed")
