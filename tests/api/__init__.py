"""The RPCs over real channels: who may call them, what they do, how they fail."""
