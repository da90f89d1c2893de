"""What the platform is about: identifiers and records, frozen and without behaviour."""
