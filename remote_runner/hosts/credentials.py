"""The password that a user may give, whatever way: one for all hosts, asked for at most once.

It authenticates and unlocks encrypted keys alike. `repr` never shows it. The keys themselves are in `keys.py`.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable

from remote_runner.errors import UsageError

PASSWORD_FILE_VARIABLE = 'RR_PASS_FILE'  # noqa: S105 - the name of a variable
#: The same for what sudo asks for, where components run as other users.
SUDO_PASSWORD_FILE_VARIABLE = 'RR_SUDO_PASS_FILE'  # noqa: S105 - the name of a variable
_log = logging.getLogger(__name__)


class Credentials:
    """Where the password comes from, in this order: given, in a file, asked for.

    Safe to use from many threads; all hosts share one.

    Args:
        password: the value of `--pass`.
        password_file: a file whose first line is the password; None: the one that `variable` names, if any.
        variable: a variable of the environment.
        ask: called with a prompt, at most once, when a password is needed and none is there; returns it, or None or ''
            when the user gives none. None: there is nobody to ask.
    """

    def __init__(
        self,
        password: str | None = None,
        *,
        password_file: str | None = None,
        variable: str = PASSWORD_FILE_VARIABLE,
        ask: Callable[[str], str | None] | None = None,
    ) -> None:
        self._password = password or None
        self._file = password_file or os.environ.get(variable) or None
        self._ask = ask
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f'Credentials(password={"***" if self._password else None}, ask={self._ask is not None})'

    def password(self) -> str | None:
        """The password, without asking for one.

        Raises:
            UsageError: the password file cannot be read, or is another user's.
        """
        with self._lock:
            if self._password is None and self._file is not None:
                self._password = _read_password(self._file)
                self._file = None
            return self._password

    def ask(self, prompt: str) -> str | None:
        """The password, asked for if there is none yet and somebody can be asked; None if there is none to be had.

        The first caller's prompt is the one that is shown; all others wait for the same answer.
        """
        if given := self.password():
            return given
        with self._lock:
            if self._password is None and self._ask is not None:
                ask, self._ask = self._ask, None
                self._password = ask(prompt) or None
            return self._password


def _read_password(name: str) -> str:
    try:
        with open(name, encoding='utf-8') as file:  # noqa: PTH123 - may be /dev/fd/63
            status = os.fstat(file.fileno())
            if status.st_uid != os.getuid():
                raise UsageError(f'the password file {name} belongs to another user')
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
                _log.warning('the password file %s can be read by others (chmod 600 %s)', name, name)
            password = file.readline().rstrip('\r\n')
    except OSError as error:
        raise UsageError(f'the password file {name} cannot be read: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise UsageError(f'the password file {name} is not text in UTF-8') from error
    if not password:
        raise UsageError(f'the first line of the password file {name} is empty')
    return password
