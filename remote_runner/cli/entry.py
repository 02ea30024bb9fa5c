"""The first code of the command: Ctrl-C has its meaning before anything else is imported."""

import os
import signal


def _interrupted(number: int, frame: object) -> None:
    """Nothing has begun that would have to be taken back."""
    os.write(2, b'\nERROR: interrupted\n')
    os._exit(130)


def entry_point() -> None:
    """What the installed command runs."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as in the background
        signal.signal(signal.SIGINT, _interrupted)
    from remote_runner.cli.main import run

    run()
