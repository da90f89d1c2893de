"""The HTTP edge: health, the connect page and the OAuth callback. It never sends a CORS header."""
