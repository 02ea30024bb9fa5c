"""What a screen window runs: it calls back, starts the component's program on «go», and ends its whole tree.

Two processes of this file stand behind every component (`main` forks once, before anything else):

* the *guard*, the window's own process. It waits for the keeper and takes over its duties if that is killed.
* the *keeper*: it calls back and waits for «go». Then (`agent/keeper.py`) it owns the inner pseudo-terminal, starts the
  program in it, relays between it and the window, writes `output.log`, answers whoever connects to its control socket,
  starts the program again where its policy says so, and ends the tree on TERM, HUP or `stop`.

Both are child subreapers (prctl(2)), so that no descendant of the program can leave the tree, and the keeper has a
parent-death signal, so that no single `kill -9` leaves a descendant behind or `status.json` wrong. The proof that
nothing is left is `waitpid` answering ECHILD. A program that runs as another user has such a pair of its own under sudo
(`agent/deputy.py`), because nobody else may signal it.

It starts in milliseconds, because it imports built-in modules alone. Its one argument is the folder of the component:
`spec` (marshal: see `agent/folders.py`; named `spec.new` until it is claimed, so that a second start of the same
window, the `r` key of a zombie window, counts as one by hand), and what it writes itself: `status.json`, `output.log`
(mode 0600) and `output.idx` (records of two little-endian numbers, float64 Unix time and uint64 offset in
`output.log`).
It imports modules that are built into Python and its siblings alone.
"""

import posix
import select
import sys
import time

import _signal

if __name__ == '__main__':
    sys.path.insert(0, __file__.rsplit('/', 3)[0])

from remote_runner.agent.keeper import Keeper
from remote_runner.agent.peers import Peer, connect, listen
from remote_runner.agent.records import Folder, forget, read_file
from remote_runner.agent.terminal import EXIT_NOT_FOUND, say
from remote_runner.agent.tree import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    Signals,
    Tree,
    exit_code,
    milliseconds,
    prctl,
    reap,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remote_runner.agent.delegate import Delegate

EXIT_ABORTED = 75  # EX_TEMPFAIL, sysexits(3)


def wait_for_go(folder: Folder, agent: Peer, signals: Signals) -> "tuple[str, bytes | None]":
    """Say hello and wait for the answer: '' for go, else the reason why not; and what sudo is told, if it asks."""
    try:
        load = posix.getloadavg()[0]
    except OSError:
        load = -1.0
    agent.send(('hello', folder.spec['token'], folder.status['launcher'], folder.status['window'], load))
    poll = select.poll()
    poll.register(agent.fd, select.POLLIN)
    poll.register(signals.fd, select.POLLIN)
    while True:
        # CLOCK_MONOTONIC is the machine's, so the agent and we mean the same moment.
        left = folder.spec['deadline'] - time.monotonic()
        if left <= 0:
            return 'no answer within the time limit', None
        poll.poll(milliseconds(left))
        came = signals.take() & {_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT}
        if came:
            return 'ended by signal {}'.format(min(came)), None
        messages = agent.receive()
        if messages is None:
            return 'the connection was lost before the start', None
        for message in messages:
            if message[0] == 'abort':
                return str(message[1]), None  # also behind a go that we read too late
        for message in messages:
            if message[0] == 'go' and time.monotonic() < folder.spec['deadline']:
                return '', message[1]


def too_much_load(most: "float | None") -> str:
    """Why this host is too busy for a component with that `max_load`; '' where it is not."""
    load = posix.getloadavg()[0] / (posix.cpu_count() or 1)
    if most is None or load <= most:
        return ''
    return 'the load per core is {:.2f}, above its max_load of {:g}'.format(load, most)


def guard(folder: Folder, keeper: int, signals: Signals) -> int:
    """Wait for the keeper; if it was killed, end what it leaves behind. The exit status to end with."""
    poll = select.poll()
    poll.register(signals.fd, select.POLLIN)
    tree = Tree(folder.spec['stop_signal'])
    code = None
    unable: "tuple[int, ...]" = ()
    while True:
        ended, left = reap()
        if keeper in ended:
            code = exit_code(ended[keeper])
            if not left and posix.WIFEXITED(ended[keeper]):
                return code
            tree.end(folder.spec['stop_timeout'])
        if not left:
            _recall(folder)
            folder.write_status('killed', exit_status=code, ended=time.time(), reason='the launcher was killed')
            say('the launcher was killed; the program was ended')
            return EXIT_ABORTED if code is None else code
        poll.poll(milliseconds(tree.wait()))
        if signals.take() & {_signal.SIGTERM, _signal.SIGHUP} and code is None:
            posix.kill(keeper, _signal.SIGTERM)
        tree.tick()
        if tree.left != unable:
            unable = tree.left  # of another user, whose deputies were killed too
            _recall(folder)
            folder.write_status('unknown', left=list(unable))


def _recall(folder: Folder) -> None:
    """Take over what the killed keeper wrote last."""
    from remote_runner.wire.compact_json import loads  # with modules that nothing else here needs

    try:
        folder.status.update(loads(read_file(folder.path + '/status.json').decode('ascii')))
    except (OSError, ValueError):
        return  # it wrote nothing


def keep(folder: Folder) -> int:
    """What the keeper does, from calling back to the end of the tree; the exit status of the window."""
    signals = Signals((_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT, _signal.SIGCHLD, _signal.SIGWINCH))
    if posix.getppid() != folder.status['launcher']:
        return EXIT_ABORTED
    agent = password = None
    if folder.claimed:
        agent = connect(folder.spec['agent'])
        reason = 'the one who opened this window is gone'
        if agent is not None:
            reason, password = wait_for_go(folder, agent, signals)
        if reason:
            folder.write_status('aborted', reason=reason, ended=time.time())
            say('not started: {}; r starts it by hand'.format(reason))
            return EXIT_ABORTED
        reason = too_much_load(folder.spec['max_load'])
        if reason and agent is not None:
            folder.write_status('failed', reason='it refused to start: {}'.format(reason), ended=time.time())
            agent.send(('refused', 0, reason, time.time()))
            say('not started: {}; r starts it all the same'.format(reason))
            return EXIT_ABORTED
    else:
        say('started by hand')
    if folder.spec['user'] is not None:
        delegate = become(folder, agent, signals, password)
        password = None  # we live as long as the program does
        return EXIT_NOT_FOUND if delegate is None else keep_for_another(folder, agent, signals, delegate)
    control = listen(folder.spec['control'])
    code = Keeper(folder, agent, control, signals).run()
    forget(folder.spec['control'])
    return code


def become(
    folder: Folder, agent: "Peer | None", signals: Signals, password: "bytes | None"
) -> "Delegate | None":
    """Become the user as whom the program is to run; None where that cannot be, and why was told."""
    from remote_runner.agent.delegate import Delegate
    from remote_runner.agent.sudo import Refused

    try:
        return Delegate(folder.spec, password, signals, by_hand=not folder.claimed)
    except Refused as refused:
        now = time.time()
        folder.write_status('failed', stage='sudo', reason=refused.why, ended=now)
        if agent is not None:
            agent.send(('failed', 'sudo', 0, now, refused.why))
        say('not started: {}; r starts it by hand'.format(refused.why))
        _wait_for_sudo()
        return None


def keep_for_another(folder: Folder, agent: "Peer | None", signals: Signals, delegate: "Delegate") -> int:
    """`keep`, of a program that runs as another user: its processes are a deputy's, all else is ours."""
    from remote_runner.agent.delegate import DeputyLost

    control = listen(folder.spec['control'])
    try:
        code = Keeper(folder, agent, control, signals, delegate).run()
    except DeputyLost:
        say('what ran as {name} was killed'.format(**folder.spec['user']))
        posix.kill(posix.getpid(), _signal.SIGKILL)  # our guard ends what is left of us, and says so
        raise
    forget(folder.spec['control'])
    delegate.close()
    _wait_for_sudo()
    return code


def _wait_for_sudo() -> None:
    """Until it has ended, which cannot be hurried: what is left of us would count as killed."""
    while reap()[1]:
        select.poll().poll(20)


def main(path: str) -> int:
    """Run the component in folder `path`; the exit status of the window."""
    signals = Signals((_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT, _signal.SIGCHLD))
    folder = Folder(path)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    keeper = posix.fork()
    if keeper:
        return guard(folder, keeper, signals)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, _signal.SIGTERM)
    try:
        return keep(folder)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        posix.kill(posix.getpid(), _signal.SIGKILL)  # a fault of ours: the guard ends the tree and says so
        raise


if __name__ == '__main__':
    posix._exit(main(sys.argv[1]))
