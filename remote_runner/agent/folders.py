"""The folders of components on this host: where they lie, what is written for a launcher, and what it left behind.

`<state>/hosts/<hostname>/<session>/<run>/<number>` holds `spec` (written here, as `spec.new`), `status.json`,
`output.log` and `output.idx` (written by the launcher, see `agent/records.py`).
"""

import errno
import marshal
import os
import time

import _signal

from remote_runner.agent import processes, records, screen, secrets
from remote_runner.agent.request import Failure
from remote_runner.wire.compact_json import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Sequence, Tuple

    from remote_runner.agent.request import Request

#: Bytes of output.log that a report of a failure shows, at most.
TAIL = 4096
#: What of a status file holds text of programs, in which a secret may stand.
FREE_TEXT = ('said', 'reason')
#: States that a status file keeps although nobody is there any more who would change it.
OVER = frozenset(['exited', 'stopped', 'failed', 'aborted', 'killed'])
#: What reading a spec raises that was never written, or not whole: the disk was full, or the host lost its power.
UNREADABLE = (OSError, EOFError, ValueError, TypeError, KeyError)
#: What the name of a run's folder begins with that is being removed.
HIDDEN = '.'
#: sun_path, unix(7), without its final zero byte.
MAX_SOCKET_PATH = 107


def state_folder(session: str) -> str:
    """Where the components of a session have their folders on this host."""
    return private_folders(state_root(), session)


def state_root() -> str:
    """Where sessions have their folders on this host (a home may be shared by many hosts).

    Without a home that can be written to it is below the runtime folder.
    """
    state = state_home()
    try:
        os.makedirs(state, 0o700, exist_ok=True)
        return private_folders(state, 'remote_runner', 'hosts', os.uname().nodename)
    except OSError:
        state = private_folders(screen.runtime_folder(), 'state')
    return private_folders(state, 'remote_runner', 'hosts', os.uname().nodename)


def state_home() -> str:
    """Where programs of this user keep their state (XDG Base Directory Specification)."""
    return os.environ.get('XDG_STATE_HOME') or os.path.expanduser('~/.local/state')


def private_folders(root: str, *names: str) -> str:
    """Make folders below one another (mode 0700) where they are missing; the innermost."""
    for name in names:
        root = os.path.join(root, name)
        try:
            os.mkdir(root, 0o700)
        except FileExistsError:
            continue
    return root


def read_status(folder: str) -> "Optional[Dict[str, Any]]":
    """What the launcher wrote last; None where it wrote nothing (yet)."""
    try:
        return dict(loads(records.read_file(os.path.join(folder, 'status.json')).decode('ascii')))
    except (FileNotFoundError, ValueError):
        return None


def guard_lives(folder: str, status: "Dict[str, Any]") -> bool:
    """Whether the guard of a component is there; another launcher may have the pid of one that is not."""
    run, number = folder.split('/')[-2:]
    try:
        argv = records.read_file('/proc/{}/cmdline'.format(status.get('launcher', 0))).split(b'\0')
    except OSError:
        return False
    return any(word.endswith(os.fsencode('/{}/{}'.format(run, number))) for word in argv)


def read_secrets(folder: str) -> "Tuple[str, ...]":
    """What no master is told of what a component says; nothing where its spec cannot be read: it never ran."""
    try:
        return secrets.of_spec(read_spec(folder))
    except UNREADABLE:
        return ()


def masked(status: "Dict[str, Any]", hidden: "Sequence[str]") -> "Dict[str, Any]":
    """A status as a master is told it."""
    return dict(status, **{name: secrets.mask(status[name], hidden) for name in FREE_TEXT if name in status})


def tail(folder: str, hidden: "Sequence[str]" = ()) -> str:
    """The end of what a component's program has printed since its last start: whole lines, if it has some.

    What is `hidden` is masked. Half a secret would be masked by nobody, so the text begins with none.
    """
    reversed_secrets = [_encode(secret)[::-1] for secret in hidden]
    most = TAIL + max([len(secret) for secret in reversed_secrets], default=0)
    data, is_cut = b'', False
    for name in ('output.log', 'output.log.1'):
        path = os.path.join(folder, name)
        missing = most - len(data)
        try:
            size = os.stat(path).st_size
            data = records.read_piece(path, max(0, size - missing), missing) + data
        except OSError:
            continue  # there is none, or it is just being replaced
        is_cut = is_cut or size > missing
    own = _printed(folder)
    if own is not None and own < len(data):
        data, is_cut = data[len(data) - own :], False
    if is_cut or len(data) > TAIL:
        data = secrets.cut(data[::-1], TAIL, reversed_secrets)[::-1]
        data = data[data.find(b'\n', 0, -1) + 1 :]
    return secrets.mask(data.decode('utf-8', 'replace'), hidden)


def _printed(folder: str) -> "Optional[int]":
    """How many bytes the program has printed since its last start; None where that cannot be told."""
    try:
        size = os.stat(os.path.join(folder, 'output.log')).st_size
    except OSError:
        return None  # there is none, or it is just being replaced
    begin = (read_status(folder) or {}).get('begin', 0)
    return int(records.read_base(os.path.join(folder, 'output.idx')) + size - begin)


def why_not_started(folder: str, stage: str, number: int) -> str:
    """The reason of a failed start as a sentence that says what to look at."""
    spec = read_spec(folder)
    program = os.fsdecode(spec['argv'][0])
    said = os.strerror(number)
    user = spec['user']['name'] if spec['user'] is not None else ''
    if stage == 'chdir':
        who = ' as {}'.format(user) if user else ''
        return 'cannot enter its base_dir {}{}: {}'.format(os.fsdecode(spec['cwd']), who, said)
    program = os.path.join(os.fsdecode(spec['cwd']), program)
    if user and number == errno.EACCES:
        return '{} cannot be run as {}: {} (it, or a folder above it, is not for them)'.format(program, user, said)
    if number in (errno.ENOENT, errno.EACCES) and os.path.isfile(program):
        interpreter = _interpreter(program)
        if interpreter.endswith('\r'):
            return '{}: its first line asks for {!r}: it has line ends of Windows'.format(program, interpreter)
        if number == errno.EACCES and not os.access(program, os.X_OK):
            mode = os.stat(program).st_mode & 0o7777
            return '{} is not executable (its mode is {:o}; chmod +x it, here or there)'.format(program, mode)
        if interpreter:
            return '{}: its interpreter {} (its first line) cannot be run: {}'.format(program, interpreter, said)
    if number == errno.ENOENT:
        return 'there is no file {}{}'.format(program, _hint(spec))
    if number == errno.EACCES and os.path.isdir(program):
        return '{} is a folder'.format(program)
    if number == errno.ENOEXEC:
        return '{} is not a program for this machine ({})'.format(program, os.uname().machine)
    if number == errno.E2BIG:
        return '{}: its arguments and environment are too long for this machine'.format(program)
    return '{} cannot be run: {}'.format(program, said)


def _interpreter(program: str) -> str:
    try:
        with open(program, 'rb') as file:
            first = file.readline(256)
    except OSError:
        return ''  # it may be run and not be read
    words = first[2:].strip(b' \t\n').replace(b'\t', b' ').split(b' ')
    return os.fsdecode(words[0]) if first.startswith(b'#!') else ''


def _hint(spec: "Dict[str, Any]") -> str:
    """A relative executable that stands in PATH is a frequent mistake."""
    name = os.fsdecode(spec['executable'])
    if '/' in name:
        return ''
    import shutil

    found = shutil.which(name, path=os.fsdecode(processes.ENVIRONMENT.get(b'PATH', b'')))
    hint = ' (a relative executable is relative to base_dir{})'
    return hint.format('; did you mean {}?'.format(found) if found else '')


def read_spec(folder: str) -> "Dict[str, Any]":
    """What a launcher is told.

    Raises:
        FileNotFoundError: it was never written.
    """
    for name in ('spec', 'spec.new', 'spec'):  # it is renamed once, maybe between two looks
        try:
            return dict(marshal.loads(records.read_file(os.path.join(folder, name))))
        except FileNotFoundError as error:
            missing = error
    raise missing


def _encode(text: str) -> bytes:
    return text.encode('utf-8', 'surrogateescape')


def run_names(session_folder: str) -> "List[str]":
    """The runs of which a session's folder holds anything, the newest first."""
    try:
        names = sorted(os.listdir(session_folder), reverse=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [name for name in names if name[0] != HIDDEN and os.path.isdir(os.path.join(session_folder, name))]


def component_folders(run_folder: str) -> "List[str]":
    """The folders of the components of one run, in the order of their starts."""
    try:
        numbers = sorted(int(name) for name in os.listdir(run_folder) if name.isdigit())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [os.path.join(run_folder, str(number)) for number in numbers]


def write_component(request: "Request", item: "Dict[str, Any]", folder: str) -> str:
    """Write the spec of one component into its folder; the token with which its launcher will call back.

    An `item` with `again` says no more than its key and time limit: it is started as it was before.
    """
    header = request.header
    if item.get('again'):
        spec = read_spec(folder)
        for name in ('status.json', 'spec'):
            records.forget(os.path.join(folder, name))
    else:
        if os.path.isdir(folder):
            for name in ('status.json', 'spec'):
                records.forget(os.path.join(folder, name))
        else:
            os.makedirs(folder, 0o700)
        spec = _new_spec(header, item, os.path.basename(folder))
    spec.update(
        deadline=time.monotonic() + item['start_timeout'],
        agent=request.agent.starts.path,
        token=os.urandom(16).hex(),
        by=header['by'],
    )
    records.write_file(os.path.join(folder, 'spec.new'), marshal.dumps(spec, 2))
    return str(spec['token'])


def _new_spec(header: "Dict[str, Any]", item: "Dict[str, Any]", number: str) -> "Dict[str, Any]":
    user = None
    environment = dict(processes.ENVIRONMENT)
    if item['user'] is not None:
        from remote_runner.agent import become

        user = become.means(item['user'])
        environment = environment if user is None else become.environment(user)
    cwd = os.path.expanduser(item['cwd'])
    executable = os.path.join(cwd, os.path.expanduser(item['executable']))
    for name, value in item['environment'].items():
        environment[_encode(name)] = _encode(value)
    control = os.path.join(screen.runtime_folder(), '{}-{}'.format(header['run'], number))
    if len(os.fsencode(control + '.n')) > MAX_SOCKET_PATH:
        raise Failure('the path of a socket is too long: {}'.format(control), kind='runtime')
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        'name': item['name'],
        'run': header['run'],
        'session': header['session'],
        'argv': [_encode(executable)] + [_encode(word) for word in item['args']],
        'executable': _encode(item['executable']),
        'cwd': _encode(cwd),
        'user': user,
        'env': environment,
        'secrets': item['secrets'],
        'hidden': [_encode(text) for text in item['hidden']],
        'umask': umask,
        'stop_signal': signal_number(item['stop_signal']),
        'stop_timeout': float(item['stop_timeout']),
        'start_timeout': float(item['start_timeout']),
        'start_grace': float(item['start_grace']),
        'ready': item['ready'],
        'watchdog': item['watchdog'],
        'restart': item['restart'],
        'max_restarts': item['max_restarts'],
        'max_load': item['max_load'],
        'log_limit': int(item['log_limit']),
        'about': item['about'],
        'control': control,
    }


def signal_number(name: str) -> int:
    """The number of a signal on this host: `TERM` (signal(7)), or a number as text."""
    number = getattr(_signal, 'SIG' + name, None)
    if name.isdecimal() and 0 < int(name) < _signal.NSIG:
        number = int(name)
    if number is None:
        raise Failure('this host knows no signal {}'.format(name), kind='signal')
    return int(number)


def write_status(folder: str, status: "Dict[str, Any]") -> None:
    """Say what became of a component whose launcher cannot."""
    records.write_status(os.path.join(folder, 'status.json'), status)
