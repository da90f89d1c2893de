"""OAuth 2.0: the protocol without I/O, each grant, a certified provider."""
