"""An operator's own Vault or OpenBao, made ready for the platform and looked at: `connectors vault init` and `validate`.

What must be there is `connectors_grpc.embedded.setup`'s, which the embedded OpenBao is made by as well: there is one table.
"""

from connectors_grpc.provisioning.calls import Operator, ProvisioningFailed
from connectors_grpc.provisioning.initialising import Done, Initialising
from connectors_grpc.provisioning.validating import Check, validate

__all__ = ["Check", "Done", "Initialising", "Operator", "ProvisioningFailed", "validate"]
