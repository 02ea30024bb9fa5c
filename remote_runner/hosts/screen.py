"""The command that shows one window of a screen session to whoever sits at the terminal that it runs in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from remote_runner.defaults import LOCALHOST
from remote_runner.hosts.address import Address
from remote_runner.hosts.shell import sh

#: Exit statuses of the command, which has said why: there is no such session any more, or no such window in it.
SESSION_GONE = 69
WINDOW_GONE = 68
#: It would show the session within itself, picture in picture without end.
WITHIN_ITSELF = 70
NO_SCREEN = 127

_SESSION = re.compile(r'[A-Za-z0-9_.-]{1,64}')
#: Where the agent looks for screen, too, when the PATH of the login shell is bare.
_PLACES = '/usr/local/bin:/usr/bin:/bin:/opt/local/bin'
#: Kinds of terminal that do for nearly every other, the best first; the last is known everywhere.
_TERMS = 'xterm-256color xterm vt100'
_TERMINFO = ' '.join(
    f'{folder}/*/"$1"' for folder in ('"$HOME"/.terminfo', '/etc/terminfo', '/lib/terminfo', '/usr/share/terminfo')
)
#: Whether $1 is a kind of terminal that the host knows: asked of ncurses where its tools are, else of its files.
_KNOWN = (
    'if [ -z "$1" ]; then return 1;'
    ' elif command -v infocmp; then infocmp "$1";'
    ' elif command -v tput; then tput -T "$1" longname;'
    f' else for file in {_TERMINFO}; do [ -e "$file" ] && return 0; done; return 1; fi'
)


def screen_command(server: int, session: str, window: int) -> str:
    """The command line, for a terminal on the host and any login shell, that shows a window of a session.

    It attaches beside others who look at the session (`-x`), and selects the window for this terminal alone (`-p`),
    see screen(1). The terminal is taken for one that shows UTF-8 (`-U`). Where the host knows nothing of its kind
    (TERM, see terminfo(5)), a common kind is assumed. Where session or window are gone it says so, and ends with
    `SESSION_GONE` or `WINDOW_GONE`: screen itself would show another window, in which keys mean something else.

    Args:
        server: the pid of the session's server; with the name it tells sessions of one name apart.
        session: the session's name.
        window: the window's number.

    Raises:
        ValueError: no session of ours can have this name.
    """
    if not _SESSION.fullmatch(session):
        raise ValueError(f'{session!r} is no name of a session')
    address = f'{server:d}.{session}'
    it = f'session {session} (screen server {server:d})'
    steps = [
        f'PATH="$PATH:{_PLACES}"',
        'leave() { echo "remote_runner: $2"; exit $1; }',
        f'known() {{ {_KNOWN}; }} >/dev/null 2>&1',
        f'command -v screen >/dev/null || leave {NO_SCREEN} "screen is not installed here"',
        f'case "$STY" in {address}) leave {WITHIN_ITSELF} "this terminal is a window of {it} itself";; esac',
        # screen matches the beginning of a name: only its list tells whether there is this very session.
        f'case "$(screen -ls)" in *[[:space:]]{address}[[:space:]]*) kill -0 {server:d} 2>/dev/null;;'
        f' *) false;; esac || leave {SESSION_GONE} "{it} is gone"',
        f'screen -S {address} -p {window:d} -Q title >/dev/null 2>&1'
        f' || leave {WINDOW_GONE} "window {window:d} of {it} is gone"',
        f'for term in "$TERM" {_TERMS}; do known "$term" && break; done',
        'export TERM="$term"',
        f'exec screen -U -x {address} -p {window:d}',
    ]
    return sh('; '.join(steps))


def terminal_argv(address: Address, command: str, ssh: Mapping[str, str]) -> list[str]:
    """The argv by which a user runs such a command on a host: `ssh -t` with it, or on this machine the command itself.

    Args:
        ssh: what is said of all hosts: `user` (which one of the address beats) and `ssh_config`, where they are.
    """
    if address.where == LOCALHOST:
        return shlex.split(command)
    user = address.user if address.user is not None else ssh.get('user')
    options = ['-F', ssh['ssh_config']] if 'ssh_config' in ssh else []
    options += ['-p', str(address.port)] if address.port is not None else []
    return ['ssh', *options, '-t', address.name if user is None else f'{user}@{address.name}', command]
