"""What an agent does for components that run as another user: it finds out whether sudo would let them, and lets that
user into the folders that it makes for them.

See `agent/sudo.py` for how sudo is talked to, and `agent/delegate.py` for what comes of it.
"""

import errno
import os
import struct
import time

from remote_runner.agent import processes
from remote_runner.agent.request import Failure
from remote_runner.agent.sudo import Refused, Sudo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

    from remote_runner.agent.request import Request

#: Seconds that one sudo has. A trial gives way to all other programs of a busy host.
TIMEOUT = 30.0
TRIAL_TIMEOUT = 90.0
#: Where a Python is that everybody may run, if ours is none.
PYTHONS = ['/usr/bin/python3', '/usr/libexec/platform-python', '/usr/local/bin/python3']
#: Variables of a login that mean nothing, or the wrong thing, to another user.
OF_THE_LOGIN = (
    'XDG_RUNTIME_DIR', 'XDG_SESSION_ID', 'DBUS_SESSION_BUS_ADDRESS', 'SSH_AUTH_SOCK', 'XAUTHORITY', 'TMPDIR', 'MAIL',
    'XDG_CACHE_HOME', 'XDG_CONFIG_HOME', 'XDG_DATA_HOME', 'XDG_STATE_HOME',
)  # fmt: skip
# acl(5), as the kernel keeps it (linux/posix_acl_xattr.h): a version, then entries of tag, permissions and id.
_ACL_VERSION = 2
_USER_OBJ, _USER, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_NO_ID = 0xFFFFFFFF


def sudo(request: "Request") -> "Dict[str, object]":
    """Operation `sudo`: whether components may run as `users`; by name, why not, or ''.

    Without `password` the result also names those (`asks`) of whom a password might make the difference: it says what
    sudo says without one. With `password`, which this agent then remembers for the components that it starts, it is
    tried once: after the first refusal nothing more is tried.
    """
    password = request.header.get('password')
    reasons: "Dict[str, str]" = {}
    asks: "List[str]" = []
    for name in request.header['users']:
        try:
            found = means(name)
            if found is not None:
                _try(found, None if password is None else password.encode('utf-8', 'surrogateescape'))
            reasons[name] = ''
        except Failure as failure:
            reasons[name] = failure.what
        except Refused as refused:
            reasons[name] = refused.why
            if password is not None:
                untried = dict.fromkeys(request.header['users'], 'it was not tried any more: {}'.format(refused.why))
                return {'reasons': dict(untried, **reasons)}
            asks.append(name)
    if password is not None:
        request.agent.sudo_password = password.encode('utf-8', 'surrogateescape')
    return {'reasons': reasons, 'asks': asks}


def _try(found: "Dict[str, Any]", password: "Optional[bytes]") -> None:
    """Raises Refused where sudo does not run Python as that user."""
    if password is not None:
        _try_once(found, password, time.monotonic() + TRIAL_TIMEOUT)
        return
    one = Sudo(found, password)
    one.wait(time.monotonic() + TIMEOUT)
    one.close()
    os.waitpid(one.pid, 0)


def _try_once(found: "Dict[str, Any]", password: bytes, deadline: float) -> None:
    """`Sudo.try_once` in a process of its own, where no other thread of ours is in the way."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        why = 'the trial of sudo was ended'
        try:
            Sudo(found, password, is_trial=True).try_once(deadline)
            why = ''
        except Refused as refused:
            why = refused.why
        finally:
            os.write(write, why.encode('utf-8', 'replace') + b'.')
            os._exit(0)
    os.close(write)
    with open(read, 'rb') as file:
        said = file.read()
    os.waitpid(pid, 0)
    if said != b'.':
        raise Refused(said[:-1].decode('utf-8', 'replace') or 'the trial of sudo was killed')


def means(name: "Optional[str]") -> "Optional[Dict[str, Any]]":
    """What it takes to become this user; None for nobody, and for ourselves.

    Raises:
        Failure: there is no such user, no sudo, or no Python that they could run.
    """
    if name is None:
        return None
    import pwd

    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise Failure('there is no user {} on this host'.format(name), kind='user') from None
    if entry.pw_uid == os.getuid():
        return None
    program = processes.find('sudo')
    if program is None:
        raise Failure('cannot run anything as {}: sudo is not installed'.format(name), kind='sudo')
    python = next(filter(_is_for_all, [os.path.realpath(processes.PYTHON), *PYTHONS]), None)
    if python is None:
        raise Failure('{} cannot run Python: {} is private'.format(name, processes.PYTHON), kind='sudo')
    try:
        login = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        login = str(os.getuid())
    return {
        'name': name,
        'login': login,
        'sudo': program,
        'python': python,
        'home': entry.pw_dir,
        'shell': entry.pw_shell or processes.SHELL,
    }


def _is_for_all(path: str) -> bool:
    """Whether everybody may run this program, as far as modes tell."""
    try:
        while path != '/':
            if not os.stat(path).st_mode & 0o001:
                return False
            path = os.path.dirname(path)
    except OSError:
        return False
    return True


def environment(found: "Dict[str, Any]") -> "Dict[bytes, bytes]":
    """The environment of our login as it is for another user."""
    own = {os.fsencode(name) for name in OF_THE_LOGIN}
    kept = {name: value for name, value in processes.ENVIRONMENT.items() if name not in own}
    for name, value in (('HOME', found['home']), ('SHELL', found['shell'])):
        kept[os.fsencode(name)] = os.fsencode(value)
    for name in ('USER', 'LOGNAME'):
        kept[os.fsencode(name)] = os.fsencode(found['name'])
    return kept


def let_in(folder: str, name: "Optional[str]") -> None:
    """Let a user into a folder of ours, and into all that is made there later, and nobody else.

    Raises:
        Failure: there is no such user, or the file system has no access control lists.
    """
    found = means(name)
    if found is None:
        return
    import pwd

    uid = pwd.getpwnam(found['name']).pw_uid
    if uid == 0:
        return  # who may do everything
    try:
        os.setxattr(folder, 'system.posix_acl_access', _acl([uid]))
        # What the other user makes there is ours to read, too.
        os.setxattr(folder, 'system.posix_acl_default', _acl(sorted([uid, os.getuid()])))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        what = 'the file system of {} has no access control lists to let {} in; a base_dir that is theirs is needed'
        raise Failure(what.format(os.path.dirname(folder), name), kind='acl') from None


def _acl(users: "List[int]") -> bytes:
    """An access control list of the owner and these users."""
    entries: "List[Tuple[int, int, int]]" = [(_USER_OBJ, 7, _NO_ID)]
    entries += [(_USER, 7, uid) for uid in users]
    entries += [(_GROUP_OBJ, 0, _NO_ID), (_MASK, 7, _NO_ID), (_OTHER, 0, _NO_ID)]
    return struct.pack('<I', _ACL_VERSION) + b''.join(struct.pack('<HHI', *entry) for entry in entries)
