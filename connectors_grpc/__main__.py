"""`python -m connectors_grpc`: the same as `connectors`."""

from connectors_grpc.cli.main import main

if __name__ == "__main__":
    main()
