"""The configuration file: what tenants there are to be, read, planned against what a server says, and applied through its API.

`tree` and `reading` know where everything stands; `interpolation`, `overlay`, `model` and `plan` decide, and do nothing;
`loading` reads files, `asking` and `applying` talk to a server. Nothing here knows the command line.
"""
