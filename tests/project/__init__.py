"""The project itself: house rules, documents, deployment files, compatibility."""
