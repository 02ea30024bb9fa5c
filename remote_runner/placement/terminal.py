"""Our terminal, while a command elsewhere has its keys: imported where one is wanted, and nowhere else."""

import os
import termios
import tty


class Terminal:
    """The terminal that is our standard input."""

    def __init__(self) -> None:
        self._before = termios.tcgetattr(0)

    def make_raw(self) -> None:
        """From now on every key goes to the command."""
        self._before = termios.tcgetattr(0)
        tty.setraw(0, termios.TCSANOW)

    def restore(self) -> None:
        """It is as it was before."""
        try:
            termios.tcsetattr(0, termios.TCSANOW, self._before)
        except termios.error:
            return  # it is gone

    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        columns, rows = os.get_terminal_size(0)
        return rows, columns
