"""The HTTP port: REST, its document, pages for people, metrics; and HTTP to third parties."""
