"""Tests: laws that every adapter keeps, real peers, and attacks by number."""
