"""`python -m connectors_grpc`: the same as `connectors`."""

import os

# Before anything imports grpc: its C core would write remarks about connections between our lines.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from connectors_grpc.cli.main import main

if __name__ == "__main__":
    main()
