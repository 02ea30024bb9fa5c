"""What stands on this host: the components of sessions, how they are, what they use, and what killed launchers left.

What a launcher says itself counts more than what it wrote: its disk may be full. A launcher whose both processes were
killed leaves its program without anybody; such programs are found by their environment and ended here.
"""

import errno
import os
import select
import time

import _signal

from remote_runner.agent import folders, peers, processes, screen, secrets, tree
from remote_runner.agent.folders import OVER
from remote_runner.agent.records import read_file
from remote_runner.agent.request import Failure
from remote_runner.agent.threads import Thread
from remote_runner.wire.compact_json import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, List, Optional, Set, Tuple

    from remote_runner.agent.request import Request

    Values = Dict[str, Any]

#: Seconds that all keepers together have to say how they are.
ANSWER_TIMEOUT = 2.0


class Found:
    """One component as its folder shows it."""

    def __init__(self, folder: str, spec: "Values") -> None:
        self.folder = folder
        self.spec = spec
        self.status: "Values" = folders.read_status(folder) or {}
        self.peer = peers.connect(self.spec['control'])
        self.left: "List[int]" = []

    @property
    def has_lost_keeper(self) -> bool:
        """Whether its keeper vanished without a last word."""
        state = self.status.get('state')
        return self.peer is None and state is not None and state not in OVER

    @property
    def is_abandoned(self) -> bool:
        """Whether its guard did, too."""
        return self.has_lost_keeper and not self.guard_lives()

    def guard_lives(self) -> bool:
        """Whether its guard is there; another launcher may have the pid of one that is not."""
        return folders.guard_lives(self.folder, self.status)

    def _usage(self) -> "Dict[str, float]":
        """What the program uses, without those who stand behind it."""
        return usage(self.status['deputy' if 'deputy' in self.status else 'keeper'])

    def describe(self) -> "Values":
        """What the master is told; see `survey`."""
        state = self.status.get('state', 'starting' if self.peer is not None else 'aborted')
        status = dict(self.status, state=state)
        if state == 'aborted':
            status.setdefault('reason', 'its launcher ended before it was told to start')
        if self.is_abandoned:
            status['state'] = 'killed' if self.left else 'gone'
        elif self.has_lost_keeper and state != 'unknown':  # then its guard has found what it cannot end
            status.update(state='stopping', reason='its launcher was killed, and the program is being ended')
        elif state == 'failed' and 'errno' in status:
            status['reason'] = folders.why_not_started(self.folder, status['stage'], status['errno'])
        spec, about = self.spec, self.spec['about']
        return {
            'name': spec['name'],
            'host': about['host'],
            'run': spec['run'],
            'session': spec['session'],
            'by': spec['by'],
            'about': about,
            'cwd': os.fsdecode(spec['cwd']),
            'user': spec['user']['name'] if spec['user'] is not None else None,
            'folder': self.folder,
            'status': folders.masked(status, secrets.of_spec(spec)),
            'alive': self.peer is not None or status['state'] == 'stopping',
            'left': self.left,
            'ready': spec['ready'] is None or 'ready' in self.status,
            'has_readiness': spec['ready'] is not None,
            'stop_timeout': spec['stop_timeout'],
            'start_timeout': spec['start_timeout'],
            'start_grace': spec['start_grace'],
            'usage': self._usage() if self.peer is not None and 'keeper' in self.status else None,
        }


def survey(request: "Request") -> "Dict[str, object]":
    """Operation `survey`: the components of `session`, or (None) of all sessions, in the order of their starts.

    Of each name (of `names` alone, where given) those of the newest run stand there, or of `runs` where given, and
    those that are alive. With `watch`
    what their launchers say comes as events from then on, under the keys `name@host`. What killed launchers left is
    being ended; with `settle` that is waited for. The result holds the time of this host's clock, the pids of the
    screen servers by session, and of each component what it is, how it is, and what all processes of its program use:
    `cpu` seconds, `memory` bytes (resident), `processes`.
    """
    header = request.header
    found: "List[Found]" = []
    servers: "Dict[str, List[int]]" = {}
    for session in [header['session']] if header['session'] else all_sessions():
        found += in_session(session, header.get('runs'), header.get('names'))
        servers[session] = screen.sessions(session) if found else []
    ask_how_they_are(found)
    ending = end_abandoned(found)
    request.agent.duties += ending
    if header.get('settle'):
        for thread in ending:
            thread.join()
    if header.get('watch'):
        _watch(request, found)
    described = [one.describe() for one in found]
    for one in found:
        if one.peer is not None:
            one.peer.sock.close()
    return {'now': time.time(), 'servers': servers, 'components': described}


def all_sessions() -> "List[str]":
    """The sessions that have left something here."""
    root = folders.state_root()
    return sorted(name for name in os.listdir(root) if os.path.isdir(os.path.join(root, name)))


def in_session(
    session: str, runs: "Optional[List[str]]" = None, names: "Optional[List[str]]" = None
) -> "List[Found]":
    """The components of a session, of these runs or of the newest, and those of others that are alive.

    Alive is also that of which a killed launcher has left something. Where `names` are given, those alone.
    """
    root = os.path.join(folders.state_root(), session)
    own: "List[Tuple[bool, Found]]" = []
    for position, run in enumerate(folders.run_names(root)):
        is_wanted = run in runs if runs is not None else position == 0
        for folder in folders.component_folders(os.path.join(root, run)):
            try:
                spec = folders.read_spec(folder)
                if names is None or spec['name'] in names:
                    own.append((is_wanted, Found(folder, spec)))
            except folders.UNREADABLE:
                continue  # its spec was never written, or not whole
    remains = _of_which_something_is_left(one for _, one in own)
    by_name: "Dict[str, Found]" = {}
    for is_wanted, one in own:
        known = by_name.get(one.spec['name'])
        lives = one.peer is not None or one in remains
        if (known is None and (is_wanted or lives)) or (
            known is not None and lives and known.peer is None and known not in remains
        ):
            by_name[one.spec['name']] = one
        elif one.peer is not None:
            one.peer.sock.close()
    return sorted(by_name.values(), key=lambda one: (one.spec['about']['index'], one.spec['run'], one.folder))


def _of_which_something_is_left(found: "Iterable[Found]") -> "Set[Found]":
    """Those whose keepers vanished, and not all of their processes."""
    lost = {(one.spec['run'], one.spec['name']): one for one in found if one.has_lost_keeper}
    if not lost:
        return set()
    left = {(run, name) for _, run, name in marked()}
    return {one for key, one in lost.items() if key in left or one.guard_lives()}


def ask_how_they_are(found: "Iterable[Found]") -> None:
    """Let the keepers that are there say how they are."""
    found = list(found)
    for one, answer in ask(found, ('status',), 'status'):
        one.status = loads(answer[1])
    for one in found:
        if one.peer is None:
            one.status = folders.read_status(one.folder) or {}


def ask(found: "Iterable[Found]", question: "Tuple[object, ...]", kind: str) -> "List[Tuple[Found, Tuple[Any, ...]]]":
    """Ask all keepers at once; those that answer with a message of this kind, and that."""
    waiting = {one.peer.fd: one for one in found if one.peer is not None}
    answers = []
    poll = select.poll()
    for fd, one in waiting.items():
        assert one.peer is not None
        one.peer.send(question)
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while waiting and time.monotonic() < deadline:
        for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            one = waiting[fd]
            assert one.peer is not None
            messages = one.peer.receive()
            own = [message for message in messages or [] if message[0] == kind]
            if messages is None:
                one.peer.sock.close()
                one.peer = None
            elif own:
                answers.append((one, own[-1]))
            if own or messages is None:
                poll.unregister(fd)
                del waiting[fd]
    return answers


def signal(request: "Request") -> "Dict[str, object]":
    """Operation `signal`: `signal` (`USR1`, `15`) to the process groups of the programs of components `names`.

    The result names those that got it, and why others did not.
    """
    header = request.header
    number = folders.signal_number(header['signal'])
    wanted = in_session(header['session'], header.get('runs'), header['names'])
    results = {one.spec['name']: 'it does not run' for one in wanted}
    for one, answer in ask(wanted, ('signal', number), 'signalled'):
        if answer[1] != errno.ESRCH:
            results[one.spec['name']] = os.strerror(answer[1]) if answer[1] else ''
    return {'results': results}


def end_others(request: "Request") -> "Dict[str, object]":
    """Operation `end_others`: end components of `session` for `by`, all but those of the names `spare`; how many there
    were.

    Where `among` is given only those of these names are meant. Their windows are closed. A Failure names what could not
    be ended within `stop_timeout` and KILL.
    """
    from remote_runner.agent import starts

    header = request.header
    alive = in_session(header['session'], [])
    ask_how_they_are(alive)  # their status files may be missing: a full disk
    among = header['among']
    meant = [one for one in alive if one.peer is not None and (among is None or one.spec['name'] in among)]
    others = [one for one in meant if one.spec['name'] not in header['spare']]
    for one in others:
        assert one.peer is not None
        one.peer.send(('stop', one.spec['stop_timeout'], header['by']))
    launchers = {one.status.get('launcher', 0): one for one in others}
    patience = header['stop_timeout'] + 2 * tree.KILL_TIMEOUT
    left = processes.wait_gone(processes.identify(launchers), patience)
    for one in alive:
        if one.peer is not None:
            one.peer.sock.close()
    if left:
        names = ', '.join(launchers[pid].spec['name'] for pid, _ in left)
        raise Failure('could not be ended: {}'.format(names), kind='left')
    starts.close_old_windows(header['session'], [one.folder for one in others])
    screen.end_leftovers(request)
    return {'ended': len(others)}


def _watch(request: "Request", found: "Iterable[Found]") -> None:
    from remote_runner.agent.starts import Component

    request.agent.starts.listen()
    for one in found:
        component = Component('{}@{}'.format(one.spec['name'], one.spec['about']['host']), one.folder)
        component.peer = peers.connect(one.spec['control'])
        if component.peer is None and one.peer is not None:  # it has just ended
            one.peer.sock.close()
            one.peer, one.status = None, folders.read_status(one.folder) or {}
        request.agent.starts.add(component)
        if one.has_lost_keeper:
            Thread(request.agent.starts.last_word, component)  # its guard may be ending it


# ---- what processes use --------------------------------------------------------------------------------------------


def usage(keeper: int) -> "Dict[str, float]":
    """What all processes below a keeper use together (proc(5), `stat`)."""
    ticks = pages = count = 0
    for pid in tree.descendants(keeper):
        try:
            stat = read_file('/proc/{}/stat'.format(pid))
        except OSError:
            continue  # it has just ended
        fields = stat[stat.rindex(b')') + 2 :].split()
        # utime, stime, and those of children that were waited for.
        ticks += sum(int(field) for field in fields[11:15])
        pages += int(fields[21])
        count += 1
    return {
        'cpu': ticks / os.sysconf('SC_CLK_TCK'),
        'memory': pages * os.sysconf('SC_PAGE_SIZE'),
        'processes': count,
    }


# ---- what killed launchers left ------------------------------------------------------------------------------------


def end_left(session: str, patience: float) -> "Set[int]":
    """End what killed launchers left of the newest run of a session; pids of what could not be ended.

    Nothing else of the session runs any more. Its programs get no more than `patience` seconds between their stop
    signal and KILL.
    """
    found = in_session(session)
    for one in found:
        one.spec['stop_timeout'] = min(patience, one.spec['stop_timeout'])
    for thread in end_abandoned(found):
        thread.join()
    return {pid for one in found for pid in one.left}


def end_abandoned(found: "Iterable[Found]") -> "List[Thread]":
    """End the programs of components whose launchers were killed; what is left of each is noted in it.

    What ends them must outlive the connection: they may ignore the first signal.
    """
    abandoned = {(one.spec['run'], one.spec['name']): one for one in found if one.is_abandoned}
    if not abandoned:
        return []
    for pid, run, name in marked():
        one = abandoned.get((run, name))
        if one is not None:
            one.left.append(pid)
    return [Thread(_end, one) for one in abandoned.values() if one.left]


def marked() -> "List[Tuple[int, str, str]]":
    """All processes of ours that run, or descend from, a component: their pids, runs and names."""
    found = []
    for entry in os.listdir('/proc'):
        component = component_of(int(entry)) if entry.isdigit() else None
        if component is not None:
            found.append((int(entry), *component))
    return found


def component_of(pid: int) -> "Optional[Tuple[str, str]]":
    """The run and name of the component that a process of ours runs, or descends from; None where it does neither."""
    try:
        environment = processes.environment(pid)
    except OSError:
        return None  # it is gone, or another user's
    if b'RR_RUN' not in environment or b'RR_COMPONENT' not in environment:
        return None
    run, name = (environment[name].decode('utf-8', 'surrogateescape') for name in (b'RR_RUN', b'RR_COMPONENT'))
    return run, name


def _end(one: Found) -> None:
    """The stop signal, and KILL to what is left after a while, with all that was forked meanwhile."""
    left: "Set[Tuple[int, int]]" = set()
    number, patience = one.spec['stop_signal'], one.spec['stop_timeout']
    while True:
        if (folders.read_status(one.folder) or {}).get('launcher') != one.status['launcher']:
            return  # another agent has ended it, and it has been started again
        own = [pid for pid, run, name in marked() if (run, name) == (one.spec['run'], one.spec['name'])]
        members = {member for pid in own for member in [pid, *tree.descendants(pid)]}
        left = processes.identify(members)
        if not left:
            break
        processes.kill(left, number)
        processes.kill(left, _signal.SIGCONT)
        left = processes.wait_gone(left, patience)
        if left and number == _signal.SIGKILL:
            break  # nothing can end them
        # Once more, until there is none: one of them may have forked after we looked, and before it was killed.
        number, patience = _signal.SIGKILL, tree.KILL_TIMEOUT
    one.left = sorted(pid for pid, _ in left)
    if left:
        return
    why = 'its launcher was killed; what was left of the program was ended later'
    now = folders.read_status(one.folder) or {}
    if now.get('launcher') == one.status['launcher'] and now.get('state') not in OVER:
        one.status.update(state='killed', reason=why, ended=time.time())
        folders.write_status(one.folder, one.status)
