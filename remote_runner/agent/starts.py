"""Starting components on this host, and knowing what became of them.

The agent writes a component's folder (`<state>/hosts/<hostname>/<session>/<run>/<number>`), opens a window whose
command is the launcher on that folder, and waits for the launcher to call back on a unix socket with the one-time token
of the spec. What launchers say is passed on to the master as events `launcher` with the component's key; go and abort
come back as operation `answer`. A later agent finds running launchers through their control sockets (`watch`).
"""

import os
import select

from remote_runner.agent import folders, peers, processes, records, screen, secrets, sockets
from remote_runner.agent.request import Failure
from remote_runner.agent.threads import Lock, Thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, Iterator, List, Optional, Set, Tuple

    import _socket

    from remote_runner.agent.main import Agent
    from remote_runner.agent.request import Request

#: Seconds that a guard gets to end what a killed keeper left, beyond any stop_timeout that makes sense.
LAST_WORD_TIMEOUT = 300.0
#: Seconds until a call is tried to be taken again for which no file could be opened.
FULL = 0.1
#: Folders of the latest runs of a session that are kept, and the number from which on the others are removed.
KEPT_RUNS = 5
MOST_RUNS = 10


class Component:
    """What this agent knows of one component that it starts or watches."""

    def __init__(self, key: str, folder: str, token: str = '') -> None:
        self.key = key
        self.folder = folder
        self.secrets = folders.read_secrets(folder)
        self.token = token
        self.window = -1
        self.uses_sudo = False
        self.peer: "Optional[peers.Peer]" = None
        self.answer: "Optional[Tuple[object, ...]]" = None  # given before it called back


class Starts:
    """The socket on which launchers call back, and the connections to all launchers known here."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._lock = Lock()
        self.components: "Dict[str, Component]" = {}
        self.sessions: "Set[str]" = set()
        self._strangers: "Dict[int, peers.Peer]" = {}
        self._wake, self._wake_write = os.pipe()
        self._socket: "Optional[_socket.socket]" = None
        self._thread: "Optional[Thread]" = None
        self.path = ''

    def listen(self) -> None:
        """Begin to take calls."""
        with self._lock:
            if self._thread is not None:
                return
            folder = screen.runtime_folder()
            _forget_dead_agents(folder)
            self.path = os.path.join(folder, 'agent-{}'.format(os.getpid()))
            self._socket = peers.listen(self.path)
            self._thread = Thread(self._serve)

    def add(self, component: Component) -> None:
        """Expect calls of this component, or (with a peer) listen to it."""
        with self._lock:
            self.components[component.key] = component
        os.write(self._wake_write, b'.')

    def tell(self, key: str, message: "Tuple[object, ...]") -> None:
        """Say something to the launcher of a component; one that has yet to call back hears it then."""
        with self._lock:
            component = self.components.get(key)
            peer = component.peer if component is not None else None
            if component is not None and component.token:
                component.answer = message
        if peer is not None:
            peer.send(message)

    def close(self) -> None:
        """Leave: launchers that have not heard go find the connection closed."""
        if self.path:
            records.forget(self.path)
            try:
                sockets.forget_dead(os.path.dirname(self.path))
            except OSError:
                pass  # the next run tries again
        for session in self.sessions:
            try:
                _prune(session)
            except OSError:
                continue  # the next run tries again

    def _serve(self) -> None:
        """Take calls and pass on what launchers say."""
        assert self._socket is not None
        while True:
            with self._lock:
                strangers = dict(self._strangers)
                by_fd = {c.peer.fd: c for c in self.components.values() if c.peer is not None}
            poll = select.poll()
            for fd in [self._socket.fileno(), self._wake, *strangers, *by_fd]:
                poll.register(fd, select.POLLIN)
            for fd, _ in poll.poll():
                if fd == self._wake:
                    os.read(self._wake, 4096)
                elif fd == self._socket.fileno():
                    self._accept(self._socket)
                elif fd in strangers:
                    self._meet(strangers[fd])
                else:
                    self._hear(by_fd[fd])

    def _accept(self, listening: "_socket.socket") -> None:
        """Take a call; where no more files may be open it waits until one is closed."""
        try:
            peer = peers.accept(listening)
        except OSError:
            select.poll().poll(FULL * 1000)
            return
        with self._lock:
            self._strangers[peer.fd] = peer

    def _meet(self, peer: peers.Peer) -> None:
        """First words of a launcher: they must hold the token of a component that we opened a window for."""
        messages = peer.receive()
        if messages == []:
            return
        with self._lock:
            del self._strangers[peer.fd]
            found = None
            if messages and messages[0][0] == 'hello':
                _, token, pid, window, load = messages[0]
                found = next((c for c in self.components.values() if c.token and c.token == token), None)
            if found is None or messages is None:
                peer.sock.close()
                return
            found.peer = peer
            found.token = ''
            if found.answer is not None:
                peer.send(found.answer)
            found.window = window
        self._agent.event('launcher', key=found.key, message=['hello', pid, window, load])
        for message in messages[1:]:
            self._pass_on(found, message)

    def _hear(self, component: Component) -> None:
        assert component.peer is not None
        messages = component.peer.receive()
        if messages is None:
            component.peer.sock.close()
            with self._lock:
                component.peer = None
            Thread(self.last_word, component)
            return
        for message in messages:
            self._pass_on(component, message)

    def last_word(self, component: Component) -> None:
        """The keeper is gone: when its guard is too, what they wrote is final, and told."""
        status = folders.read_status(component.folder) or {}
        if 'gone' not in status and 'launcher' in status:
            processes.wait_gone(processes.identify([status['launcher']]), LAST_WORD_TIMEOUT)
            status = folders.read_status(component.folder) or {}
        status = folders.masked(status, component.secrets)
        status['output'] = folders.tail(component.folder, component.secrets)
        self._agent.event('launcher', key=component.key, message=['closed'], status=status)

    def _pass_on(self, component: Component, message: "Tuple[Any, ...]") -> None:
        """To the master, without the component's secrets: what a program says of itself may hold them."""
        fields: "Dict[str, str]" = {}
        if message[0] == 'failed' and message[1] == 'sudo':
            fields['reason'] = message[4]
        elif message[0] == 'failed':
            try:
                fields['reason'] = folders.why_not_started(component.folder, message[1], message[2])
            except (OSError, ValueError, EOFError):
                fields['reason'] = os.strerror(message[2])  # its folder is gone or cannot be read
        elif message[0] in ('exited', 'restarting'):
            fields['output'] = folders.tail(component.folder, component.secrets)
        kind, *said = message
        fields = secrets.mask_all(fields, component.secrets)
        masked = [kind, *secrets.mask_all(said, component.secrets)]
        self._agent.event('launcher', key=component.key, message=masked, **fields)


def _forget_dead_agents(folder: str) -> None:
    """Remove the sockets of agents that were killed."""
    for name in os.listdir(folder):
        kind, _, pid = name.partition('-')
        if kind == 'agent' and pid.isdigit() and processes.start_time(int(pid)) is None:
            records.forget(os.path.join(folder, name))


def _prune(session: str) -> None:
    """Remove the folders of old runs that nothing runs of any more, if they have become many; the newest stay."""
    root = folders.state_folder(session)
    runs = folders.run_names(root)[::-1]
    if len(runs) < MOST_RUNS:
        return
    import shutil  # a tenth of the agent's start

    for name in runs[:-KEPT_RUNS]:
        if not any(_is_alive(folder) for folder in folders.component_folders(os.path.join(root, name))):
            shutil.rmtree(os.path.join(root, name), ignore_errors=True)  # what cannot go now goes next time


# ---- operations ----------------------------------------------------------------------------------------------------


def open_windows(request: "Request") -> "Dict[str, object]":
    """Operation `open`: write the folders of `components` and open a window for each, starting the session if needed.

    Each has its own `start_timeout`, in seconds from now until its launcher must have heard go. One that the run knows
    already is started anew, in the folder that it has. `zombie` keeps the windows of ended programs. The result names
    the session's server. Hellos come as events.
    """
    header = request.header
    session = header['session']
    request.agent.starts.listen()
    request.agent.starts.sessions.add(session)
    if screen.users_password():
        raise Failure(
            "the user's .screenrc sets a password, with which no command reaches a session; remove that line",
            kind='screen',
        )
    root = folders.state_folder(session)
    runs = {item.get('run', header['run']) for item in header['components']}
    # Not always that of the request: no host shall have a run of which it has no component.
    folder = folders.private_folders(root, max(runs))
    number = first = len(folders.component_folders(folder))
    windows: "List[screen.Window]" = []
    short = screen.safe_path(root)
    code, package, agent, _ = __file__.rsplit('/', 3)
    launcher = os.path.join(screen.safe_path(code), package, agent, 'launcher' + os.path.splitext(__file__)[1])
    known = {run: _named(os.path.join(root, run)) for run in runs}
    paths = {item['key']: known[item.get('run', header['run'])].get(item['name']) for item in header['components']}
    again = {key: path for key, path in paths.items() if path is not None}
    alive = [key for key, path in again.items() if _is_alive(path)]
    if alive:
        raise Failure('still running: {}'.format(', '.join(alive)), kind='runs')
    close_old_windows(session, again.values())
    for item in header['components']:
        path = paths[item['key']]
        if path is None:
            path = os.path.join(folder, str(number))
            number += 1
        component = Component(item['key'], path, folders.write_component(request, item, path))
        component.uses_sudo = folders.read_spec(path)['user'] is not None
        request.agent.starts.add(component)
        argv = [processes.PYTHON, '-IS', launcher, os.path.join(short, os.path.relpath(path, root))]
        windows.append(screen.Window(item['name'], argv))
    servers = screen.known_sessions(request, session)
    if len(servers) > 1:
        raise Failure('there are {} screen sessions named {}'.format(len(servers), session), kind='screen')
    if servers:
        path = os.path.join(short, os.path.basename(folder), 'windows-{}.rc'.format(first))
        screen.add_windows(path, servers[0], session, windows)
        return {'server': servers[0], 'started': False}
    server = screen.start_session(folder, session, windows, header['zombie'])
    request.agent.sessions[session] = [server]
    Thread(_wait_for_server, request.agent, server, folder, session)
    return {'server': server, 'started': True}


def close_old_windows(session: str, paths: "Iterable[str]") -> None:
    """Close the windows of components that have ended, where they are still that."""
    statuses = {path: folders.read_status(path) or {} for path in paths}
    old = {status['window']: status['name'] for status in statuses.values() if 'window' in status}
    # A keeper's last word comes before its guard ends, and screen takes a moment to see that.
    guards = [status['launcher'] for path, status in statuses.items() if folders.guard_lives(path, status)]
    processes.wait_gone(processes.identify(guards), screen.COMMAND_TIMEOUT)
    for server in screen.sessions(session) if old else []:
        windows = screen.windows_when_ended(server, session, old)
        closed = [number for number in old if windows.get(number) == (old[number], True)]
        for number in closed:
            screen.command(server, session, 'at', '{}#'.format(number), 'kill')
        if len(closed) == len(windows):  # with its last window the session ends: nobody must meet it meanwhile
            processes.wait_gone(processes.identify([server]), screen.COMMAND_TIMEOUT)


def _wait_for_server(agent: "Agent", server: int, folder: str, session: str) -> None:
    """Say so when the server of a session that we started ends, with what it printed."""
    os.waitpid(server, 0)
    agent.event('session-ended', server=server, output=screen.why_ended(folder))


def answer(request: "Request") -> "Dict[str, object]":
    """Operation `answer`: `go`, or `abort` with a `reason`, to the launchers of `keys`."""
    starts = request.agent.starts
    for key in request.header['keys']:
        if not request.header['go']:
            starts.tell(key, ('abort', request.header['reason']))
        elif key in starts.components:
            starts.tell(key, ('go', request.agent.sudo_password if starts.components[key].uses_sudo else None))
    return {}


def _folders(session: str) -> "Iterator[str]":
    """The folders of all components of all runs of a session."""
    root = folders.state_folder(session)
    if os.path.isdir(root):
        for run in os.listdir(root):
            yield from folders.component_folders(os.path.join(root, run))


def _connect(folder: str) -> "Optional[peers.Peer]":
    try:
        return peers.connect(folders.read_spec(folder)['control'])
    except folders.UNREADABLE:
        return None  # its spec was never written, or not whole


def _is_alive(folder: str) -> bool:
    peer = _connect(folder)
    if peer is not None:
        peer.sock.close()
    return peer is not None


def running(request: "Request") -> "Dict[str, object]":
    """Operation `running`: the components of `session` whose launchers answer, with their last status."""
    alive = [folder for folder in _folders(request.header['session']) if _is_alive(folder)]
    found = [folders.masked(folders.read_status(folder) or {}, folders.read_secrets(folder)) for folder in alive]
    return {'components': found}


def watch(request: "Request") -> "Dict[str, object]":
    """Operation `watch`: listen to components that an earlier agent started; `keys` are {key: name}.

    Launchers that are there tell their whole story again, as events. The result holds, by key, the last status of all.
    """
    header = request.header
    request.agent.starts.listen()
    states: "Dict[str, Optional[Dict[str, Any]]]" = {}
    root = os.path.join(folders.state_folder(header['session']), header['run'])
    known = _named(root)
    for key, name in header['keys'].items():
        folder = known.get(name)
        if folder is None:
            states[key] = None
            continue
        component = Component(key, folder)
        component.peer = _connect(folder)
        status = folders.masked(folders.read_status(folder) or {}, component.secrets)
        output = folders.tail(folder, component.secrets)
        states[key] = dict(status, alive=component.peer is not None, output=output)
        request.agent.starts.add(component)
    return {'states': states}


def _named(run_folder: str) -> "Dict[str, str]":
    """The folders of the components of one run, by name."""
    found = {}
    for folder in folders.component_folders(run_folder):
        try:
            found[folders.read_spec(folder)['name']] = folder
        except folders.UNREADABLE:
            continue  # its spec was never written, or not whole
    return found


def stop(request: "Request") -> "Dict[str, object]":
    """Operation `stop`: end the trees of the components `keys`, for `by`; `gone` comes as an event of each."""
    for key in request.header['keys']:
        request.agent.starts.tell(key, ('stop', float(request.header['stop_timeout']), request.header['by']))
    return {}


def close_windows(request: "Request") -> "Dict[str, object]":
    """Operation `close_windows`: close the windows of `keys` (they did not start); a session without others ends.

    Windows whose launcher never called back cannot be told from others: they close by themselves when their launcher
    ends, or (zombie) stay with its words in them.
    """
    session = request.header['session']
    starts = request.agent.starts
    windows = [starts.components[key].window for key in request.header['keys'] if key in starts.components]
    for server in screen.sessions(session):
        for window in windows:
            if window >= 0:
                screen.command(server, session, 'at', '{}#'.format(window), 'kill')
    return {}
