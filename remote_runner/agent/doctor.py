"""What is to be known of a host before something is deployed on it: facts alone. The master judges them.

What can be tried is tried: a file is written, screen is run. A trial is removed at once, but for the mark in the home,
by which hosts that share it find each other: it goes with `tidy`, or with this agent.
"""

import errno
import os

from remote_runner.agent import folders, processes, screen, tree
from remote_runner.agent.request import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Optional, Tuple

    from remote_runner.agent.request import Request

    Facts = Dict[str, Any]

#: What a mark in a home begins with.
MARK = '.remote_runner-mark-'
#: Where systemd looks for logind.conf and its drop-ins; what comes first counts most (logind.conf(5)).
CONFIG_ROOTS = ['/etc', '/run', '/usr/local/lib', '/usr/lib']
#: Where screen keeps its sockets unless $SCREENDIR says so: builds of distributions, and screen's own default.
SOCKET_ROOTS = ['/run/screen', '/run/screens', '/var/run/screen', '/tmp/screens', '/tmp/uscreens']
#: Bytes that are written to see whether they can be.
_TRIAL = b'.' * 4096


def examine(request: "Request") -> "Facts":
    """Operation `examine`: facts of this host and user. Leaves `mark` in the home, for `neighbours` to find."""
    import resource

    home = os.path.expanduser('~')
    user = _user()
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return {
        'user': user,
        'home_error': _leave_mark(request, home),
        'places': _places(home),
        'runtime': _runtime(),
        'nofile': None if nofile == resource.RLIM_INFINITY else nofile,
        'screen': _screen(user),
        'logind': _logind(user),
    }


def neighbours(request: "Request") -> "List[str]":
    """Operation `neighbours`: the marks that begin with `prefix` in the home, ours too."""
    prefix = MARK + request.header['prefix']
    try:
        names = os.listdir(os.path.expanduser('~'))
    except OSError:
        return []  # nobody can see anything there
    return [name[len(MARK) :] for name in names if name.startswith(prefix)]


def tidy(request: "Request") -> "Dict[str, object]":
    """Operation `tidy`: remove what `examine` left."""
    request.agent.remove_temporary()
    return {}


def _user() -> str:
    """The name of our user; the number where there is no name (in many containers)."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _errno_name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error.errno))


# ---- file systems --------------------------------------------------------------------------------------------------


def _leave_mark(request: "Request", home: str) -> "Optional[str]":
    """Leave the mark, and the name of the errno that says why it could not be written in full."""
    path = os.path.join(home, MARK + request.header['mark'])
    request.agent.temporary.append(path)
    return _write_trial(path)


def _write_trial(path: str) -> "Optional[str]":
    """Write a new file (mode 0600), to the disk; the name of the errno where that fails."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            if os.write(file, _TRIAL) < len(_TRIAL):
                return 'ENOSPC'
            os.fsync(file)  # quotas and full disks of file servers are told here, or below
        finally:
            os.close(file)
    except OSError as error:
        return _errno_name(error)
    return None


def _places(home: str) -> "List[Facts]":
    """The file systems that are written to: each with its room, and the path there that exists."""
    temporary = os.environ.get('TMPDIR') or '/tmp'
    wanted = [('home', home), ('state folder', folders.state_home()), ('/tmp', '/tmp')]
    if os.path.normpath(temporary) != '/tmp':
        wanted.append(('TMPDIR', temporary))
    return [_place(name, path) for name, path in wanted]


def _place(name: str, path: str) -> "Facts":
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return {
        'name': name,
        'path': path,
        'device': os.stat(path).st_dev,
        'free': found.f_bavail * found.f_frsize,
        'inodes': found.f_files,
        'inodes_free': found.f_favail,
        'noexec': bool(found.f_flag & os.ST_NOEXEC),
    }


def _runtime() -> "Facts":
    """The folder for sockets and locks that would be used; None and the problem where there is none.

    Where it is missing it is not made, for a run that found it could not rely on it: a trial is made beside it.
    """
    problem = ''
    for folder in screen.runtime_candidates():
        trial = os.path.join(folder, '.trial-' + os.urandom(8).hex())
        is_there = os.path.lexists(folder)
        if not is_there:
            trial = folder + '.trial-' + os.urandom(8).hex()
        elif not screen.is_private(folder):
            problem = '{} is not a folder of ours'.format(folder)
            continue
        error = _try_file(trial) if is_there else _try_folder(trial)
        if error is None:
            return {'folder': folder, 'problem': ''}
        problem = '{}: {}'.format(folder, error)
    return {'folder': None, 'problem': problem}


def _try_file(path: str) -> "Optional[str]":
    """Write a file and remove it; why that failed."""
    error = _write_trial(path)
    try:
        os.unlink(path)
    except OSError as left:
        error = error or _errno_name(left)
    return error


def _try_folder(path: str) -> "Optional[str]":
    """Make a folder with a file in it and remove both; why that failed."""
    try:
        os.mkdir(path, 0o700)
        try:
            return _try_file(os.path.join(path, 'trial'))
        finally:
            os.rmdir(path)
    except OSError as error:
        return _errno_name(error)


# ---- screen --------------------------------------------------------------------------------------------------------


def _screen(user: str) -> "Facts":
    """What screen says of itself. `status` is that of `screen -q -ls`: from 9 on it works (screen(1), -q)."""
    facts = {
        'path': processes.find('screen'),
        'version': '',
        'status': None,
        'said': '',
        'screendir': os.environ.get('SCREENDIR'),
        'folders': [],
        'password': screen.users_password(),
    }  # type: Facts
    if facts['path'] is None:
        return facts
    try:
        facts['version'] = _version(_run('-v')[1])
        _, facts['said'] = _run('-ls')
        facts['status'], _ = _run('-q', '-ls')
    except OSError as error:
        facts['said'] = 'screen {}'.format(error.strerror)
    roots = [facts['screendir']] if facts['screendir'] else SOCKET_ROOTS
    mine = [os.path.join(root, 'S-' + user) for root in roots] if not facts['screendir'] else []
    for path in [*roots, *mine, os.path.expanduser('~/.screen')]:
        try:
            found = os.stat(path)
        except OSError:
            continue
        facts['folders'].append({'path': path, 'uid': found.st_uid, 'mode': found.st_mode & 0o7777})
    return facts


def _run(*words: str) -> "Tuple[int, str]":
    try:
        argv = [screen.require(), *(word.encode('ascii') for word in words)]
    except Failure as gone:  # since we looked for it
        raise OSError(errno.ENOENT, gone.what) from gone
    status, output = processes.run(argv, screen.COMMAND_TIMEOUT)
    return tree.exit_code(status), ' '.join(output.decode('utf-8', 'replace').split())


def _version(said: str) -> str:
    """`4.9.0` of `Screen version 4.09.00 (GNU) 30-Jan-22`; empty where it says something else."""
    for word in said.split():
        numbers = word.split('.')
        if len(numbers) > 1 and all(number.isdigit() for number in numbers):
            return '.'.join(str(int(number)) for number in numbers)
    return ''


# ---- what logind does at logout ------------------------------------------------------------------------------------


def _logind(user: str) -> "Facts":
    """The settings of logind.conf(5) about processes at logout. None: it is not set."""
    facts = {'kill': None, 'only': [], 'exclude': None, 'file': ''}  # type: Facts
    for path in _logind_files():
        for key, value in _login_section(path):
            if key == 'KillUserProcesses' and value:
                facts['kill'] = value.lower() in ('1', 'yes', 'y', 'true', 't', 'on')
            elif key == 'KillOnlyUsers':
                facts['only'] = facts['only'] + value.split() if value else []
            elif key == 'KillExcludeUsers':
                facts['exclude'] = (facts['exclude'] or []) + value.split() if value else []
            else:
                continue
            facts['file'] = path
    facts['linger'] = os.path.exists('/var/lib/systemd/linger/' + user)
    return facts


def _logind_files() -> "List[str]":
    """logind.conf, then the drop-ins by their names: what is read later counts more."""
    mains = [root + '/systemd/logind.conf' for root in CONFIG_ROOTS]
    drop_ins: "Dict[str, str]" = {}
    for root in reversed(CONFIG_ROOTS):
        folder = root + '/systemd/logind.conf.d'
        try:
            names = os.listdir(folder)
        except OSError:
            continue  # most have none
        drop_ins.update((name, os.path.join(folder, name)) for name in names if name.endswith('.conf'))
    return [path for path in mains if os.path.isfile(path)][:1] + [drop_ins[name] for name in sorted(drop_ins)]


def _login_section(path: str) -> "Iterator[Tuple[str, str]]":
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            lines = [line.strip() for line in file]
    except OSError:
        return  # not for us to read
    section = ''
    for line in lines:
        if line.startswith('['):
            section = line
        elif section == '[Login]' and '=' in line and line[0] not in '#;':
            key, _, value = line.partition('=')
            yield key.strip(), value.strip()
