"""Trying a definition out before anybody relies on it: the real use cases, over memory, against a provider on this machine.

`stage` puts the use cases together; `redirected` sends what they send to one place, whatever host it was meant for.
"""
