"""The gRPC edge: one boundary for every call, and a servicer a service that parses, calls one use case, and answers."""
