"""The first code of the command: Ctrl-C has its meaning before anything else is imported, and `dsh` starts at once."""

import gc
import os
import sys

import _signal


def _interrupted(number: int, frame: object) -> None:
    """Nothing has begun that would have to be taken back."""
    os.write(2, b'\nERROR: interrupted\n')
    os._exit(130)


def entry_point() -> None:
    """What the installed command runs."""
    if sys.argv[1:2] == ['dsh']:
        from remote_runner.placement.client import main

        status = main(sys.argv[2:])
        if status is not None:
            os._exit(status)
    elif _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # else it is ignored, as in the background
        _signal.signal(_signal.SIGINT, _interrupted)
    gc.set_threshold(50_000, 20, 20)  # imports make much that stays and no garbage
    from remote_runner.cli.main import run

    run()
