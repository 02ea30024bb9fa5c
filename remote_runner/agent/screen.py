"""GNU screen on this host: finding sessions, quitting them, starting them and opening windows.

screen fails without saying so in many ways (an argument too long, a window that does not exist, a stopped server, a
session that matches by prefix), so nothing here takes its word: sessions are listed, matched exactly and addressed as
`PID.name`, and only a launcher's hello proves a window. See screen(1).
"""

import binascii
import os
import stat
import time

import _signal

from remote_runner.agent import processes, records, tree
from remote_runner.agent.request import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Set, Tuple

    from remote_runner.agent.request import Request

#: Seconds that one screen command may take.
COMMAND_TIMEOUT = 10.0
#: Seconds that a server gets to end its windows before it is killed.
SERVER_TIMEOUT = 2.0
#: Seconds that it may take a session to see that the program of a window has ended.
NOTICE_TIMEOUT = 1.0
#: Characters of a path that screen certainly takes as one word.
MAX_WORD = 400
#: Lines that a window remembers.
SCROLLBACK = 10000
#: Windows that a session may have (the most that screen can).
MAX_WINDOWS = 2048


def require() -> bytes:
    """The path of screen; a Failure where there is none."""
    path = processes.find('screen')
    if path is None:
        raise Failure('screen is not installed', kind='no-screen')
    return os.fsencode(path)


def sessions(name: str) -> "List[int]":
    """The pids of the servers of all live sessions with exactly this name."""
    return _alive(_listed(name))


def is_running(name: str) -> bool:
    """Whether a session of this name runs, as far as that can be told without asking screen."""
    return _socket_folder(name) is not None


def known_sessions(request: "Request", name: str) -> "List[int]":
    """As `sessions`, without asking screen where this agent, which holds the lock, quit or started it itself."""
    known = request.agent.sessions.get(name)
    if known is None or any(processes.start_time(pid) is None for pid in known):
        return sessions(name)
    return known


def _listed(name: str) -> "List[int]":
    """The pids of the servers of all sessions with exactly this name, dead ones too."""
    folder = _socket_folder(name)
    if folder is not None:
        try:
            return [int(entry.partition('.')[0]) for entry in os.listdir(folder) if _is_session(entry, name)]
        except OSError:
            pass  # it has just been removed: screen says what is left
    return [pid for pid, session in _shown() if session == name]


def all_sessions() -> "Dict[str, List[int]]":
    """The pids of the servers of all live sessions, by their names; none where there is no screen."""
    if processes.find('screen') is None:
        return {}
    found: "Dict[str, List[int]]" = {}
    for pid, name in _shown():
        if _alive([pid]):
            found.setdefault(name, []).append(pid)
    return found


def _shown() -> "List[Tuple[int, str]]":
    """What screen lists: the pids of servers, and the names of their sessions, dead ones too."""
    status, output = processes.run([require(), b'-ls'], COMMAND_TIMEOUT)
    found: "List[Tuple[int, str]]" = []
    for line in output.split(b'\n'):
        # "<tab>1234.name<tab>(Detached)", with a date between the two in some builds.
        pid, _, session = line.strip().split(b'\t')[0].partition(b'.')
        if line.startswith(b'\t') and pid.isdigit():
            found.append((int(pid), os.fsdecode(session)))
    says_so = any(words in output for words in (b'No Sockets found', b'Sockets in', b'Socket in'))
    if not found and not says_so and tree.exit_code(status) != 0:
        # Its socket folder has the wrong owner or mode, for example.
        raise Failure('screen does not work: {}'.format(_text(output)), kind='screen')
    return found


def _alive(servers: "List[int]") -> "List[int]":
    """Those that are there, and are screen: the pid of one that was killed may be another program's today."""
    found = []
    for pid in servers:
        try:
            is_screen = b'screen' in records.read_file('/proc/{}/comm'.format(pid)).lower()
        except OSError:
            continue  # it is gone
        if is_screen and processes.start_time(pid) is not None:
            found.append(pid)
    return found


def _is_session(entry: str, name: str) -> bool:
    """Whether `entry` of a socket folder, `PID.name`, belongs to a session of this name."""
    pid, _, session = entry.partition('.')
    return pid.isdigit() and session == name


def _socket_folder(name: str) -> "Optional[str]":
    """Where our screen keeps its sockets, if a running session of this name shows it: screen takes 5 ms to say so."""
    with open('/proc/net/unix', errors='surrogateescape') as file:
        fields = [line.rstrip('\n').split(None, 7) for line in file]
    for path in [found[7] for found in fields if len(found) == 8]:
        folder, entry = os.path.split(path)
        if not _is_session(entry, name):
            continue
        try:
            if os.stat(folder).st_uid != os.getuid():
                continue
            its_own = processes.environment(int(entry.partition('.')[0])).get(b'SCREENDIR')
        except OSError:
            continue  # it has just ended
        if its_own == processes.ENVIRONMENT.get(b'SCREENDIR'):
            return folder
    return None


def _text(output: bytes) -> str:
    return ' '.join(output.decode('utf-8', 'replace').split()) or 'it printed nothing'


# ---- the runtime folder --------------------------------------------------------------------------------------------


def runtime_folder() -> str:
    """The private folder (mode 0700) for sockets and locks: never in the home, which hosts may share.

    Under /tmp, because the runtime folder of a login session vanishes with the last login, and programs stay.
    """
    problem = ''
    for folder in runtime_candidates():
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            problem = '{}: {}'.format(folder, error.strerror)
            continue
        if is_private(folder):
            os.chmod(folder, 0o700)
            return folder
        problem = '{} is not a folder of ours'.format(folder)
    raise Failure('no private folder for sockets: {}'.format(problem), kind='runtime')


def runtime_candidates() -> "List[str]":
    """Where the runtime folder may be, the best place first."""
    candidates = ['/tmp/remote_runner-{}'.format(os.getuid())]
    if os.environ.get('XDG_RUNTIME_DIR'):
        candidates.append(os.path.join(os.environ['XDG_RUNTIME_DIR'], 'remote_runner'))
    return candidates


def is_private(folder: str) -> bool:
    """Whether what stands there is a folder, and ours."""
    found = os.lstat(folder)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


# ---- quitting ------------------------------------------------------------------------------------------------------


def quit_session(request: "Request") -> "Dict[str, object]":
    """Operation `quit`: end all sessions named `session` and wait until no process of theirs is left.

    `stop_timeout` is what the processes get from their launchers between TERM and KILL, at most. The result names how
    many sessions and processes there were; processes that nothing could end make it a Failure.
    """
    name = request.header['session']
    listed = _listed(name)
    servers = _alive(listed)
    request.agent.sessions[name] = []
    if not servers:
        _wipe(name, listed)
        end_leftovers(request)
        return {'sessions': 0, 'processes': 0}
    everything: "Set[Tuple[int, int]]" = set()
    for server in servers:
        everything |= processes.identify([server, *tree.descendants(server)])
    mains = {process for process in everything if process[0] in servers}
    processes.kill(mains, _signal.SIGTERM)  # as the command `quit`, which takes 5 ms to be sent
    stuck = processes.wait_gone(mains, SERVER_TIMEOUT)
    processes.kill(stuck, _signal.SIGKILL)
    left = processes.wait_gone(everything, float(request.header['stop_timeout']) + tree.KILL_TIMEOUT)
    if left:  # no launcher stands behind these: windows that a person opened
        processes.kill(left, _signal.SIGTERM)
        left = processes.wait_gone(left, 1.0)
        processes.kill(left, _signal.SIGKILL)
        left = processes.wait_gone(left, tree.KILL_TIMEOUT)
    if stuck or listed != servers:
        _wipe(name, listed)
    if left:
        pids = ', '.join(str(pid) for pid, _ in sorted(left))
        raise Failure('session {} was quit, but these processes could not be ended: {}'.format(name, pids), kind='left')
    end_leftovers(request)
    return {'sessions': len(servers), 'processes': len(everything) - len(servers)}


def end_leftovers(request: "Request") -> None:
    """End what launchers left that were killed. Status files tell whether there may be some."""
    from remote_runner.agent import folders

    name = request.header['session']
    root = folders.state_folder(name)
    own = [folder for run in folders.run_names(root) for folder in folders.component_folders(os.path.join(root, run))]
    states = [(folders.read_status(folder) or {}).get('state') for folder in own]
    if all(state is None or state in folders.OVER for state in states):
        return
    from remote_runner.agent import survey  # takes a millisecond

    left = survey.end_left(name, float(request.header['stop_timeout']))
    if left:
        pids = ', '.join(str(pid) for pid in sorted(left))
        raise Failure('these processes, which killed launchers left, could not be ended: {}'.format(pids), kind='left')


def _wipe(name: str, servers: "List[int]") -> None:
    """Remove the sockets of dead sessions of exactly this name; else screen speaks of them whenever it is used."""
    for server in servers:
        address = '{}.{}'.format(server, name).encode()
        processes.run([require(), b'-wipe', address], COMMAND_TIMEOUT)


# ---- starting ------------------------------------------------------------------------------------------------------


class Window:
    """What a window is opened with: its title and the command line of its launcher."""

    def __init__(self, title: str, argv: "List[str]") -> None:
        self.line = ' '.join(['screen', '-t', quote(title), *(quote(item) for item in argv)])


def quote(text: str) -> str:
    """`text` as one word of a screen command file, where `$`, `^`, `\\`, quotes and `#` have meanings of their own."""
    word = ''
    for character in text:
        if character.isalnum() or character in '_-./@%+=:,':
            word += character
        elif character == "'":
            word += '"\'"'
        elif character in '\n\r\t\0':
            word += ' '
        elif character == '^':
            word += '\\^'
        elif character == '\\':
            word += '\\\\'
        else:
            word += "'{}'".format(character)
    return word or "''"


def safe_path(path: str) -> str:
    """`path`, or a link to it in the runtime folder, so that screen reads it as it stands.

    In a command file nothing can quote a newline, bytes that are no UTF-8 are read as Latin-1, and words are cut.
    """
    if len(path) < MAX_WORD and all((c.isalnum() and ord(c) < 128) or c in '/_-.' for c in path):
        return path
    link = os.path.join(runtime_folder(), 'link-{:08x}'.format(binascii.crc32(os.fsencode(path))))
    for attempt in range(100):
        name = '{}-{}'.format(link, attempt)
        try:
            os.symlink(path, name)
            return name
        except FileExistsError:
            if os.readlink(name) == path:
                return name
    raise Failure('too many links in {}'.format(runtime_folder()), kind='runtime')


def start_session(folder: str, name: str, windows: "List[Window]", zombie: bool) -> int:
    """Start a session whose first windows are these; the pid of its server.

    `-D -m` in a session of its own: it does not fork, so the pid is known at once. What it prints goes to a file in
    `folder`, because a pipe would end with us and the server does not.
    """
    rc = [
        'maxwin {}'.format(MAX_WINDOWS),
        *_users_rc(),
        'maxwin {}'.format(MAX_WINDOWS),
        'sessionname {}'.format(name),
        'zombie qr' if zombie else 'zombie',
        'defscrollback {}'.format(SCROLLBACK),
        'defutf8 on',
        'startup_message off',
        'autodetach on',  # off, a connection that is lost while somebody looks would end all programs
        *(window.line for window in windows),
    ]
    path = os.path.join(folder, 'session.rc')
    _write_lines(path, rc)
    null = os.open(os.devnull, os.O_RDWR)
    output = os.open(session_output(folder), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        argv = [require(), b'-D', b'-m', b'-S', name.encode(), b'-c', os.fsencode(path)]
        return processes.spawn(argv, (null, output, output))
    finally:
        os.close(null)
        os.close(output)


def session_output(folder: str) -> str:
    """The file with what the server of a session printed."""
    return os.path.join(folder, 'screen.out')


def _users_rc() -> "List[str]":
    """The line that reads the user's own settings (screen itself reads /etc/screenrc first)."""
    path = os.path.expanduser('~/.screenrc')
    return ['source {}'.format(quote(safe_path(path)))] if os.path.isfile(path) else []


def add_windows(path: str, server: int, name: str, windows: "List[Window]") -> None:
    """Open more windows in a running session, all with one command; `path` is for the file that it reads."""
    _write_lines(path, [window.line for window in windows])
    command(server, name, 'source', path)


def command(server: int, name: str, *words: str) -> None:
    """Send a command to a session. That it returns proves nothing; a Failure is a hint."""
    address = '{}.{}'.format(server, name)
    argv = [require(), b'-S', address.encode(), b'-X', *(os.fsencode(word) for word in words)]
    status, output = processes.run(argv, COMMAND_TIMEOUT)
    if tree.exit_code(status) != 0:
        raise Failure('screen session {} does not answer: {}'.format(address, _text(output)), kind='screen')


def windows_of(server: int, name: str) -> "Dict[int, Tuple[str, bool]]":
    """The windows of a session by number: title, and whether its program has ended (a zombie)."""
    address = '{}.{}'.format(server, name)
    argv = [require(), b'-S', address.encode(), b'-Q', b'windows', b'%n=%f=%t|']
    _, output = processes.run(argv, COMMAND_TIMEOUT)
    found = [window.split('=', 2) for window in output.decode('utf-8', 'replace').split('|')]
    return {int(window[0]): (window[2], 'Z' in window[1]) for window in found if len(window) == 3}


def windows_when_ended(server: int, name: str, ended: "Dict[int, str]") -> "Dict[int, Tuple[str, bool]]":
    """`windows_of`, as soon as it knows of the end of the programs in these windows, {number: title}.

    A window of somebody else may have that number and title: then it is as it is after a while.
    """
    deadline = time.monotonic() + NOTICE_TIMEOUT
    while True:
        windows = windows_of(server, name)
        is_late = any(windows.get(number) == (title, False) for number, title in ended.items())
        if not is_late or time.monotonic() >= deadline:
            return windows


def _write_lines(path: str, lines: "List[str]") -> None:
    records.write_file(path, ('\n'.join(lines) + '\n').encode('utf-8', 'surrogateescape'))


def why_ended(folder: str) -> str:
    """What a server said that ended at once."""
    with open(session_output(folder), 'rb') as file:
        return _text(file.read())


def users_password() -> bool:
    """True if the user's .screenrc sets a password: then no command reaches the session."""
    try:
        with open(os.path.expanduser('~/.screenrc'), 'rb') as file:
            return any(line.split()[:1] == [b'password'] for line in file)
    except OSError:
        return False
