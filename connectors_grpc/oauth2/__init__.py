"""OAuth 2.0 as a client speaks it, without I/O: requests are built and replies are read here; others send them.

Pure: no clock, no loop, no log. `authorize` is the browser's leg, `token_request` and `token_reply` the back channel, and
`errors` the closed set of ways it ends badly.  Source: RFC 6749, 7009, 7636, 9207, 9700.
"""
