"""Batches of commands and parameter sweeps over the slots of many hosts."""
