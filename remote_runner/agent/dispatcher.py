"""What runs the tasks of one job on this host: it outlives the connection to the master, until its lease ends.

Two processes of this file stand behind a job on a host: the *dispatcher*, and its *guard*, which ends all tasks if the
dispatcher is killed. Both are child subreapers (prctl(2)), so that whatever a task starts stays below them: an attempt
is over when none of its processes is left. What the dispatcher does stands in `agent/job.py`.

    python3 -IS dispatcher.py FOLDER SOCKET
"""

import fcntl
import os
import select
import sys

import _signal

if __name__ == '__main__':
    sys.path.insert(0, __file__.rsplit('/', 3)[0])

from remote_runner.agent import peers, processes, records, tree
from remote_runner.agent.job import ENDING, Dispatcher


def guard(dispatcher: int, signals: tree.Signals) -> int:
    """Wait for the dispatcher; if it was killed, end what it leaves behind. The exit status to end with."""
    poll = select.poll()
    poll.register(signals.fd, select.POLLIN)
    below = tree.Tree()
    code = 1
    while True:
        ended, is_left = tree.reap()
        if dispatcher in ended:
            code = tree.exit_code(ended[dispatcher])
            below.end(0.0)
        if not is_left:
            return code
        poll.poll(tree.milliseconds(below.wait()))
        if signals.take() & ENDING and not below.ending:
            os.kill(dispatcher, _signal.SIGTERM)
        below.tick()


def main(folder: str, path: str) -> int:
    """Serve the job in `folder` at the socket `path`, if nobody does; says so on stdout, or why not."""
    try:
        lock = os.open(folder + '/lock', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return 0  # the one before us has just removed all
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(folder + '/lock').st_ino != os.fstat(lock).st_ino:
            return 0  # it was removed by the one before us
    except OSError:
        return 0  # another one was faster: whoever asked finds it
    if os.fork():
        os._exit(0)
    log = os.open(folder + '/log', os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 2)
    tree.default_signals()
    for number in processes.IGNORED_BY_PYTHON:
        _signal.signal(number, _signal.SIG_IGN)
    tree.prctl(tree.PR_SET_CHILD_SUBREAPER, 1)
    signals = tree.Signals((_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT, _signal.SIGCHLD))
    listening = peers.listen(path)
    own = os.getpid()
    dispatcher = os.fork()
    if dispatcher:
        listening.close()
        os.close(1)
        code = guard(dispatcher, signals)
        records.forget(path)
        if code == 0:
            _leave(folder)
        return 0
    tree.prctl(tree.PR_SET_CHILD_SUBREAPER, 1)
    signals = tree.Signals((_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT, _signal.SIGCHLD))
    tree.prctl(tree.PR_SET_PDEATHSIG, _signal.SIGTERM)
    if os.getppid() != own:
        return 1  # it was killed before that
    try:
        os.write(1, b'ready\n')
    except BrokenPipeError:
        pass  # who asked for us is gone: the next one may come
    os.dup2(0, 1)
    try:
        code = Dispatcher(folder, listening, signals).run()
        records.forget(path)  # the guard may have been killed
        return code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)  # a fault of ours: the guard ends the tasks


def _leave(folder: str) -> None:
    """Remove what is ours of the folder of a job that is over here, and the folder itself, if nothing else is there."""
    for name in ('lock', 'log'):
        records.forget('{}/{}'.format(folder, name))
    try:
        os.rmdir(folder)
    except OSError:
        return  # there is something that people may want to look at


if __name__ == '__main__':
    os._exit(main(sys.argv[1], sys.argv[2]))
