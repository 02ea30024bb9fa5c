"""What both the help texts and the code that works say; here, because help must not import the latter."""

from __future__ import annotations

#: The host that is this machine, reached without SSH.
LOCALHOST = 'localhost'
#: The name of the screen session.
SCREEN = 'runner'
#: Hosts that are worked on at the same time.
FANOUT = 64
#: Seconds for a TCP connection, and for the banner of the server, where ssh_config says no other.
CONNECT_TIMEOUT = 10.0
#: Seconds that the start of one component may take.
START_TIMEOUT = 30.0
