"""Tests of the sidecar: its pure decisions, and its engine on real sockets."""
