"""The way in from an older layout."""
