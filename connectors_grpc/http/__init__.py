"""The HTTP edge: health, the connect page, the OAuth callback, REST and metrics. It never sends a CORS header."""
