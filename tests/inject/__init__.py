"""How a credential is put into a request."""
