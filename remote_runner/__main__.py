"""`python -m remote_runner`."""

from remote_runner.cli.entry import entry_point

entry_point()
