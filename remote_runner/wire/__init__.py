"""The message format that `hosts` and `agent` share."""
