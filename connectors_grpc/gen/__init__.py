"""Generated from proto/ by scripts/gen.py; not edited."""
