"""`python -m remote_runner`."""

from remote_runner.cli.main import entry_point

entry_point()
