"""Trying a definition out before anybody relies on it: the real use cases, over memory, against a provider on this machine.

`stage` puts the use cases together, `vendor` is what they talk to, `rehearsal` goes the whole way.
"""
