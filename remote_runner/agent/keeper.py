"""What stays with a component: it starts the program, relays between it and its window, and starts it again.

See `agent/launcher.py` for the two processes behind a component. Like that it imports built-in modules and its siblings
alone.
"""

import errno
import posix
import select
import time

import _signal

from remote_runner.agent.peers import Peer, accept
from remote_runner.agent.policy import Policy
from remote_runner.agent.records import Folder, json_text
from remote_runner.agent.relay import Relay
from remote_runner.agent.terminal import EXIT_NOT_FOUND, StartError, say, start_program
from remote_runner.agent.tree import Signals, Tree, describe_status, exit_code, milliseconds, reap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Tuple, Union

    import _socket

    from remote_runner.agent.delegate import Delegate
    from remote_runner.agent.readiness import News, Readiness

    Message = Tuple[object, ...]

#: Messages of which the last one alone is told to an agent that comes later.
PASSING = ('waiting', 'said', 'extend', 'hung')
#: Seconds without an error after which a log counts as well again.
LOG_IS_WELL = 1.0
#: Why a program was ended whose guard was killed.
KILLED = 'its launcher was killed, and the program was ended'


class Keeper:
    """Starts the program and stays with it until no descendant is left and it is not to be started again.

    Args:
        folder: the component's.
        agent: who wants to know what becomes of it; None: nobody yet.
        control: where agents find us later.
        signals: that came to us.
        delegate: who has its processes in the place of us, because they are another user's.
    """

    def __init__(
        self,
        folder: Folder,
        agent: "Optional[Peer]",
        control: "_socket.socket",
        signals: Signals,
        delegate: "Optional[Delegate]" = None,
    ) -> None:
        self._delegate = delegate
        self._folder = folder
        self._spec = folder.spec
        self._signals = signals
        self._control = control
        self._peers: "Dict[int, Peer]" = {agent.fd: agent} if agent else {}
        self._history: "List[Message]" = []
        self._poll = select.poll()
        self._relay = Relay(folder.path, self._spec['log_limit'], self._poll)
        self._policy = Policy(self._spec)
        self._tree = self._new_tree()
        self._pid = 0
        self._readiness: "Optional[Readiness]" = None
        self._began = 0.0
        self._ready_by: "Optional[float]" = None
        self._is_stopping = False
        self._is_given_up = False
        self._rests_until: "Optional[float]" = None
        self._pause: "Optional[float]" = None
        self._failure = ''
        self._end_is_told = False
        self._log_error = 0
        self._log_failed = 0.0
        self.code = 0

    def run(self) -> int:
        """The exit status to end with: that of the last program, or 127 where it did not start."""
        delegated = [] if self._delegate is None else [self._delegate.fd]
        for fd in (self._signals.fd, self._control.fileno(), *self._peers, *delegated):
            self._poll.register(fd, select.POLLIN)
        while True:
            if self._begin():
                self._see_to_its_end()
            elif not self._policy.count:
                return EXIT_NOT_FOUND
            if self._pause is None or self._is_stopping:
                break
            self._rest(self._pause)
            if self._is_stopping:
                break
        self._finish()
        return self.code

    def _new_tree(self) -> "Union[Tree, Delegate]":
        """What ends all descendants of one life."""
        return Tree(self._spec['stop_signal']) if self._delegate is None else self._delegate

    @property
    def _is_orphan(self) -> bool:
        """Whether our guard was killed."""
        return bool(posix.getppid() != self._folder.status['launcher'])

    # ---- one life of the program ------------------------------------------------------------------------------

    def _begin(self) -> bool:
        """Start the program; False where that is impossible."""
        self._failure = ''
        self._ready_by = None
        if self._spec['ready'] is not None or self._spec['watchdog'] is not None:
            from remote_runner.agent.readiness import Readiness

            self._readiness = Readiness(self._spec, self._folder.path, self._delegate)
        begin = self._relay.log.size
        try:
            if self._delegate is None:
                self._pid, master, slave = start_program(self._spec)
            else:
                self._pid, master = self._delegate.start(self._spec['env'])
                slave = -1
                self._folder.note('started', deputy=self._delegate.deputy)
        except StartError as error:
            self._could_not_begin(error)
            return False
        now = time.time()
        self._began = time.monotonic()
        if self._policy.count:
            self._history = [message for message in self._history if message[0] == 'log']
            self._ready_by = self._began + self._spec['start_timeout']
            gone = dict.fromkeys(('exit_status', 'ended', 'ready', 'said', 'refused', 'reason', 'next'))
            self._folder.note('started', **{name: None for name in gone if name in self._folder.status})
        restarts = self._policy.count
        self._folder.note('started', pid=self._pid, keeper=posix.getpid(), begin=begin)
        self._folder.write_status('started', started=now, restarts=restarts)
        self._tell('started', self._pid, now, restarts)
        if self._readiness is not None:
            self._readiness.begin(begin)
            for fd in self._readiness.fds:
                self._poll.register(fd, select.POLLIN)
        self._relay.begin(master, slave)
        return True

    def _could_not_begin(self, error: StartError) -> None:
        if self._readiness is not None:
            self._readiness.close()
            self._readiness = None
        path = self._spec['cwd' if error.stage == 'chdir' else 'argv']
        path = path if isinstance(path, bytes) else path[0]
        why = 'not started: {}: {}'.format(path.decode('utf-8', 'replace'), posix.strerror(error.number))
        self.code = EXIT_NOT_FOUND
        now = time.time()
        if self._policy.count:
            self._failure = why
            self._end_or_pause(0.0, now)
            return
        self._folder.write_status('failed', stage=error.stage, errno=error.number, ended=now)
        self._tell('failed', error.stage, error.number, now)
        say(why)

    def _see_to_its_end(self) -> None:
        """Until no descendant is left."""
        while self._turn():
            continue
        self._relay.end()
        self._look_at_log()
        self._pid = 0

    def _tell(self, *message: object) -> None:
        """To all agents that are there, and to each that comes later."""
        if message[0] in PASSING:
            self._history = [old for old in self._history if old[0] != message[0]]
        self._history.append(message)
        for peer in self._peers.values():
            peer.send(message)

    def _turn(self) -> bool:
        """One round of the loop; False when no descendant is left, or the pause between two lives is over."""
        if self._relay.has_lost_window():
            self._stop(self._spec['stop_timeout'])
        self._relay.prepare()
        wait = self._wait()
        for fd, event in self._poll.poll(milliseconds(wait)):
            if self._relay.serves(fd):
                self._relay.hear(fd, event)
                self._look_at_log()
            elif fd == self._control.fileno():
                self._accept()
            elif fd in self._peers:
                self._listen_to(self._peers[fd])
            elif self._delegate is not None and fd == self._delegate.fd:
                self._delegate.hear()
            elif self._readiness is not None and fd in self._readiness.fds:
                self._hear_readiness(self._readiness, fd)
        came = self._signals.take()
        if came & {_signal.SIGTERM, _signal.SIGHUP}:
            self._stop(self._spec['stop_timeout'])
        if _signal.SIGWINCH in came:
            self._relay.pass_size()
        has_news = self._delegate is not None and self._delegate.take()
        if self._rests_until is not None:
            return not self._is_stopping and time.monotonic() < self._rests_until
        self._look_at_clock()
        return not (has_news or _signal.SIGCHLD in came) or self._reap()

    def _wait(self) -> "Optional[float]":
        """Seconds until something is due; None: nothing is."""
        if self._delegate is not None and self._delegate.has_news:
            return 0.0
        due = [self._rests_until, self._tree.deadline, self._ready_by]
        if self._readiness is not None:
            due.append(self._readiness.deadline)
        moments = [moment for moment in due if moment is not None]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _look_at_clock(self) -> None:
        """What is due: the end of the tree, the watchdog, the time limit of a restart."""
        if self._readiness is not None:
            self._take(self._readiness.look_at_clock())
        if self._ready_by is not None:
            if self._readiness is None or self._readiness.is_ready:
                self._ready_by = None
            elif time.monotonic() >= self._ready_by:
                self._ready_by = None
                self._give_up('it was not ready within {:.3g} s'.format(self._spec['start_timeout']))
        before = self._tree.left
        self._tree.tick()
        if self._tree.left != before:
            self._folder.write_status('unknown', left=list(self._tree.left))
            self._tell('gone', self._tree.left, time.time())

    def _stop(self, seconds: float, why: str = '') -> None:
        """We are asked to end it, or our guard was killed; `why`: where that says more than that it was ended."""
        if not self._is_stopping:
            self._is_stopping = True
            if self._rests_until is not None or not self._failure:
                self._failure = KILLED if self._is_orphan else why
            self._folder.write_status('stopping', reason=self._failure)
        if self._rests_until is None:
            self._tree.end(seconds)

    def _give_up(self, why: str) -> None:
        """It runs and is of no use."""
        self._failure = self._failure or why
        self._folder.note(str(self._folder.status['state']), reason=why)
        self._tree.end(self._spec['stop_timeout'])

    # ---- whether it is ready, and well ------------------------------------------------------------------------

    def _hear_readiness(self, readiness: "Readiness", fd: int) -> None:
        """What is found out, or said, about whether the program is ready and well."""
        before = readiness.fds
        self._take(readiness.hear(fd))
        for old in before:
            if old not in readiness.fds:
                self._poll.unregister(old)

    def _take(self, found: "List[News]") -> None:
        for news in found:
            if news[0] == 'hung' and self._is_stopping:
                continue  # it need not give signs of life while it comes to its end
            now = time.time()
            self._tell(*news, now)
            if news[0] == 'ready':
                self._folder.write_status('ready', ready=now)
                if self._readiness is not None:
                    self._readiness.end()
            elif news[0] == 'said':
                self._folder.write_status(str(self._folder.status['state']), said=news[1])
            elif news[0] == 'extend' and self._ready_by is not None:
                self._ready_by = max(self._ready_by, time.monotonic() + float(news[1]))
            elif news[0] == 'leaving':
                self._folder.write_status('stopping')
            elif news[0] == 'refused':
                self._folder.note('refused', refused=news[1])
                self._give_up('it refused to start: {}'.format(news[2] or posix.strerror(int(news[1]))))
            elif news[0] == 'hung':
                self._give_up(news[1])

    def _hear_last(self, readiness: "Readiness") -> None:
        """The program has ended: what it said before counts, what it would have become does not."""
        poll = select.poll()
        for fd in readiness.fds:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(0):
            if fd in readiness.fds:
                self._hear_readiness(readiness, fd)
        self._take(readiness.last_words())
        for fd in readiness.fds:
            self._poll.unregister(fd)
        readiness.close()
        self._readiness = None

    def _look_at_log(self) -> None:
        """Tell that output cannot be written, and when it can be again."""
        now, failed = time.monotonic(), self._relay.log.error
        if not failed:
            if self._log_error and now - self._log_failed > LOG_IS_WELL:
                self._log_error = 0
                self._history = [message for message in self._history if message[0] != 'log']
                self._folder.write_status(str(self._folder.status['state']), log_errno=None)
            return
        self._log_failed = now
        if not self._log_error:
            self._log_error = failed
            self._folder.write_status(str(self._folder.status['state']), log_errno=self._log_error)
            self._tell('log', self._log_error, time.time())

    # ---- agents -----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        peer = accept(self._control)
        self._peers[peer.fd] = peer
        self._poll.register(peer.fd, select.POLLIN)
        for message in self._history:
            peer.send(message)

    def _listen_to(self, peer: Peer) -> None:
        messages = peer.receive()
        if messages is None:
            self._poll.unregister(peer.fd)
            del self._peers[peer.fd]
            peer.sock.close()
            return
        for message in messages:
            if message[0] == 'abort':
                self._is_given_up = True
                self._stop(self._spec['stop_timeout'], 'its start was given up: {}'.format(message[1]))
            elif message[0] == 'stop':
                self._stop(float(message[1]), 'it was stopped by {}'.format(message[2]))
            elif message[0] == 'signal':
                self._signal(int(message[1]), peer)
            elif message[0] == 'status':
                peer.send(('status', json_text(self._folder.status)))

    def _signal(self, number: int, peer: Peer) -> None:
        """To the program's process group, as keys of its terminal would."""
        if self._delegate is not None:
            self._delegate.signal(number, lambda error: peer.send(('signalled', error)))
            return
        error = 0 if self._pid else errno.ESRCH  # in a pause there is none
        try:
            if self._pid:
                posix.killpg(self._pid, number)
        except OSError as failure:
            error = failure.errno or -1
        peer.send(('signalled', error))

    # ---- its end ----------------------------------------------------------------------------------------------

    def _reap(self) -> bool:
        """Take in ended children; False when none is left."""
        ended, left = reap()
        if self._readiness is not None:
            self._readiness.reaped(ended)
        if self._delegate is not None:
            ended, left = self._delegate.reap()
        if self._pid in ended:
            self._has_ended(ended[self._pid], left)
        return left

    def _has_ended(self, status: int, left: bool) -> None:
        """The program has; descendants of it may be left."""
        if self._readiness is not None:
            self._hear_last(self._readiness)
        self._relay.take_output(whole=True)
        self._look_at_log()
        self.code = exit_code(status)
        now = time.time()
        lived = time.monotonic() - self._began
        if self._is_stopping or (not self._policy.count and self._is_false_start(lived)):
            self._pause = None
            self._tell_end(now, 'stopping' if self._is_stopping else 'exited', left)
        else:
            self._end_or_pause(lived, now, left)

    @property
    def _is_ready(self) -> bool:
        """Whether this life of it has become ready."""
        return self._spec['ready'] is None or 'ready' in self._folder.status

    def _is_false_start(self, lived: float) -> bool:
        """Whether it has failed before it counted as started: its first start is the master's to judge."""
        return not self._is_ready or (self.code != 0 and lived < self._spec['start_grace'])

    def _end_or_pause(self, lived: float, now: float, left: bool = False) -> None:
        """This life is over: was it the last one?"""
        if self._policy.count and not self._is_ready and not self._failure:
            self._failure = 'it ended before it was ready, {}'.format(describe_status(self.code))
        is_failure = self.code != 0 or self._failure != ''
        self._pause = self._policy.pause(is_failure, lived)
        if self._pause is not None:
            self._folder.note('restarting', exit_status=self.code, ended=now)
            self._tree.end(self._spec['stop_timeout'])
            return
        if is_failure and self._policy.count:
            why = self._failure or 'it ended {}'.format(describe_status(self.code))
            many = '' if self._policy.count == 1 else 's'
            self._failure = '{}, after {} restart{}'.format(why, self._policy.count, many)
        self._tell_end(now, 'exited', left)

    def _tell_end(self, now: float, state: str, left: bool) -> None:
        self._end_is_told = True
        # Where nothing is left `_finish` writes it, with the rest.
        write = self._folder.write_status if left else self._folder.note
        write(state, exit_status=self.code, ended=now, reason=self._failure)
        self._tell('exited', self.code, now, self._failure)

    def _rest(self, pause: float) -> None:
        """The pause between two lives; it can be stopped, looked at and asked in it as in a life."""
        now = time.time()
        self._folder.write_status('restarting', next=now + pause, restarts=self._policy.count)
        self._tell('restarting', self.code, pause, self._policy.count, self._failure, now)
        how = 'failed ({})'.format(self._failure) if self._failure else 'ended with status {}'.format(self.code)
        self._relay.say('{}; starts again in {:g} s'.format(how, pause))
        self._tree = self._new_tree()
        self._rests_until = time.monotonic() + pause
        while self._turn():
            continue
        self._rests_until = None

    def _finish(self) -> None:
        """No descendant is left."""
        if self._delegate is not None:
            self._delegate.close()
        now = time.time()
        if not self._end_is_told:
            self._folder.note('exited', reason=self._failure)
            self._tell('exited', self.code, now, self._failure)
        state = 'killed' if self._is_orphan else 'stopped' if self._is_stopping else 'exited'
        if self._is_given_up and state == 'stopped':
            state = 'failed'
        self._folder.write_status(state, gone=now)
        self._tell('gone', (), now)
        self._relay.say(
            'ended at {} with status {}; q closes this window, r runs it again'.format(
                time.strftime('%H:%M:%S'), self.code
            )
        )
        self._relay.restore()
