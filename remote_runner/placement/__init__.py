"""Where to run: the loads of many hosts, which of them is the best one, and commands that go there.

`choose.py` decides and knows nothing of connections. The daemon (dshd) keeps one connection and agent a host and their
reports fresh; the client (dsh) talks to it over a socket and imports next to nothing, since it starts for every
command. Nothing here writes to a terminal but the client.
"""
