"""remote_runner beside its peers: the same work on the same test hosts, in turns, measured from outside.

`benchmarks/run` does everything and writes RESULTS.md. Nothing of remote_runner is imported here: all are commands.
"""
