"""What runs on the hosts: a small stdlib-only program (Python >= 3.6), shipped over the connection."""
