"""What runs on the hosts: a small program of the standard library alone (Python >= 3.6), shipped over the connection."""
