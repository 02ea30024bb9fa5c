"""Batches of commands and parameter sweeps over the slots of many hosts.

The scheduler (`scheduler.py`) decides, the journal (`journal.py`) knows what is true, an engine (`engines/`) carries
attempts out and reports facts; `run.py` leads them. Nothing here writes to a terminal.
"""
