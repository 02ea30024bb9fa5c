"""Hosts and the connections to them: how one is written, reached, trusted and authenticated, and its agent.

The only place where a remote command can be run.
"""
