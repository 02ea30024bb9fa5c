"""LB3 and readiness: the next index starts when a component is ready, and who is not, or refuses, says why."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from remote_runner.config import ready
from remote_runner.config.component import Component
from tests.deploying import Deployment, connections, kill
from tests.testbed.process import wait_until

SERVER = """\
import socket, sys, time
kind, go = sys.argv[1:3]
import os
while not os.path.exists(go): time.sleep(0.01)
if kind == 'tcp' or kind == 'http':
    listener = socket.create_server(('', int(sys.argv[3])))
    while True:
        connection, _ = listener.accept()
        if kind == 'http' and connection.recv(1000).startswith(b'GET /health?x=1 HTTP'):
            status = b'200 OK' if os.path.exists(go + '.well') else b'503 Not Yet'
            connection.sendall(b'HTTP/1.0 ' + status + b'\\r\\n\\r\\n')
        connection.close()
elif kind == 'file':
    open('there', 'w').close()
elif kind == 'log':
    sys.stdout.write('\\x1b[1mlistening\\x1b[0m on po')
    sys.stdout.flush()
    time.sleep(0.1)
    print('rt 7')
    sys.stdout.flush()
time.sleep(100000)
"""

#: Speaks sd_notify as a program would: each argument is a message, or `wait:FILE` for a file to appear, or `exit:N`.
NOTIFIER = """\
import os, socket, sys, time
socket_ = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for word in sys.argv[1:]:
    kind, _, rest = word.partition(':')
    if kind == 'wait':
        while not os.path.exists(rest): time.sleep(0.01)
    elif kind == 'sleep':
        time.sleep(float(rest))
    elif kind == 'exit':
        sys.exit(int(rest))
    else:
        socket_.sendto(word.encode(), os.environ['NOTIFY_SOCKET'])
time.sleep(100000)
"""


def add(deployment: Deployment, name: str, program: str, *arguments: object, **attributes: Any) -> None:
    deployment.python(name, program, **attributes)
    deployment.components[-1]['args'] += arguments


def readied(deployment: Deployment, *options: str, begins: str = '') -> dict[str, Any]:
    """Start a run whose first component waits for a file, see that the second one waits for the first, and go on."""
    running = deployment.begin(*options)
    event = running.wait_for('component_started', 'first')
    assert event['ready'] is False
    deployment.host().run(['sleep', '0.4'])
    assert [e['component'] for e in running.events if e['event'] == 'component_starting'] == ['first']
    deployment.host().run(['touch', *begins.split()])
    ended = running.finish()
    assert ended.status == 0, ended.stderr
    names = [(e['event'], e['component']) for e in ended.events if e['event'].startswith('component_')]
    order = [('component_started', 'first'), ('component_ready', 'first'), ('component_starting', 'second')]
    assert [found for found in names if found in order] == order
    return ended.the('component_ready', 'first')


@pytest.fixture
def go(deployment: Deployment) -> str:
    return f'/tmp/go-{deployment.session}'


@pytest.mark.parametrize('kind', ['tcp', 'file', 'log', 'command', 'http'])
def test_the_next_index_waits(deployment: Deployment, go: str, kind: str) -> None:
    port = 7000 + sum(map(ord, deployment.session)) % 1000
    how = {
        'tcp': ready.tcp(port),
        'http': ready.http(f'http://localhost:{port}/health?x=1'),
        'file': ready.file('there'),
        'log': ready.log(r'^listening on port \d+$'),
        'command': ready.command(['/bin/sh', '-c', f'test "$RR_COMPONENT" = first && test -e {go}'], interval=0.1),
    }[kind]
    add(deployment, 'first', SERVER, kind, go, port, ready=how, start_index=0)
    deployment.sleep('second', start_index=1)
    begins = f'{go}.well {go}' if kind == 'http' else go
    assert readied(deployment, begins=begins)['seconds'] >= 0.3


def test_notify(deployment: Deployment, go: str) -> None:
    words = ['STATUS=warming up', f'wait:{go}', 'READY=1\nSTATUS=at work']
    add(deployment, 'first', NOTIFIER, *words, ready=ready.notify())
    deployment.sleep('second', start_index=1)
    readied(deployment, begins=go)
    host = deployment.host()
    [first] = [p for p in host.processes() if p.argv[-1] == words[-1]]
    environment = host.path(f'/proc/{first.pid}/environ').read_text().split('\0')
    [path] = [line.removeprefix('NOTIFY_SOCKET=') for line in environment if line.startswith('NOTIFY_SOCKET=')]
    socket = host.path(path)
    assert socket.is_socket()
    kill(host, signal.SIGTERM, first.pid)
    wait_until(lambda: not socket.exists(), 'the socket to go')


def test_what_it_says_is_told(deployment: Deployment) -> None:
    add(deployment, 'it', NOTIFIER, 'STATUS=loading 1 of 2', 'STATUS=loading 2 of 2', 'READY=1', ready=ready.notify())
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert [event['text'] for event in ended.of('component_said')] == ['loading 1 of 2', 'loading 2 of 2']
    assert re.search(r'INFO: it@h1: ready in ', ended.stderr)


@pytest.mark.parametrize(
    ('words', 'reason'),
    [
        (['STATUS=the license server is away', 'ERRNO=2'], 'it refused to start: the license server is away'),
        (['ERRNO=28\nSTATUS=no room'], 'it refused to start: no room'),
        (['ERRNO=28'], 'it refused to start: No space left on device'),
        (['STATUS=cannot bind', 'exit:4'], 'it ended before it was ready, with exit status 4: cannot bind'),
        (['exit:0'], 'it ended before it was ready, with exit status 0'),
    ],
)
def test_who_refuses_says_why(deployment: Deployment, words: list[str], reason: str) -> None:
    add(deployment, 'it', NOTIFIER, *words, ready=ready.notify(), start_timeout=60)
    deployment.sleep('late', start_index=1)
    ended = deployment.run()
    assert ended.status == 1
    assert ended.the('component_failed', 'it')['reason'] == reason
    assert f'ERROR: it@h1: {reason}' in ended.stderr
    assert ended.names('component_starting') == ['it']
    wait_until(lambda: not [p for p in deployment.host().processes() if p.argv[-1] == words[-1]], 'its end')


@pytest.mark.parametrize(
    ('how', 'waiting'),
    [
        (ready.tcp(1), 'port 1 of localhost: Connection refused'),
        (ready.tcp(1, 'nosuch.invalid'), 'port 1 of nosuch.invalid: '),
        (ready.http('http://localhost:1/'), 'http://localhost:1/: Connection refused'),
        (ready.file('~/nosuch'), '/root/nosuch: No such file or directory'),
        (ready.file('/etc/passwd'), '/etc/passwd is still as it was before the start'),
        (ready.log('never'), "no line of its output matches 'never' yet"),
        (ready.command(['/nosuch']), '/nosuch: No such file or directory'),
        (ready.command(['sh', '-c', 'echo a; echo b; exit 3']), 'sh ended with status 3: b'),
        (ready.notify(), ''),
    ],
)
def test_who_is_not_ready_in_time_has_failed_with_the_reason(
    deployment: Deployment, how: ready.Ready, waiting: str
) -> None:
    deployment.sleep('it', ready=how, start_timeout=0.8)
    ended = deployment.run()
    assert ended.status == 1
    reason = ended.the('component_failed', 'it')['reason']
    assert reason.startswith('it was not ready within 0.8 s' + (f': {waiting}' if waiting else ''))
    wait_until(lambda: not deployment.sleepers(), 'its end')


def test_the_end_of_a_program_that_is_not_ready_is_told_at_once(deployment: Deployment) -> None:
    deployment.sh('it', 'echo about to fail; exit 7', ready=ready.tcp(1), start_timeout=60)
    ended = deployment.run()
    assert ended.status == 1
    failed = ended.the('component_failed', 'it')
    assert failed['reason'] == 'it ended before it was ready, with exit status 7'
    assert 'about to fail' in failed['output']


def test_more_time_can_be_asked_for(deployment: Deployment) -> None:
    words = ['EXTEND_TIMEOUT_USEC=20000000', 'sleep:1.5', 'READY=1']
    add(deployment, 'it', NOTIFIER, *words, ready=ready.notify(), start_timeout=0.8)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert ended.the('component_ready', 'it')['seconds'] > 1


def test_systemd_notify_and_its_barrier(deployment: Deployment) -> None:
    """Its `--ready` waits until the barrier that it sends is answered; without an answer it fails after 5 s."""
    deployment.sh(
        'it', 'systemd-notify --ready --status="all well" && echo told || echo not told; sleep 100000',
        ready=ready.notify(),
    )  # fmt: skip
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert [event['text'] for event in ended.of('component_said')] == ['all well']
    state = deployment.host().path('/root/.local/state/remote_runner/hosts/h1')
    [log] = state.glob(f'{deployment.session}/*/0/output.log')
    wait_until(lambda: log.read_text().strip() == 'told', 'the barrier')


def test_messages_of_other_users_do_not_count(deployment: Deployment, go: str) -> None:
    deployment.sh('it', f'echo $NOTIFY_SOCKET > {go}; sleep 100000', ready=ready.notify(), start_timeout=2)
    running = deployment.begin()
    host = deployment.host()
    wait_until(lambda: host.path(go).exists() and host.path(go).read_text(), 'the socket')
    path = host.path(go).read_text().strip()
    host.run(['chmod', '711', str(Path(path).parent)])
    host.run(['chmod', '777', path])
    send = 'import socket,sys;socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM).sendto(b"READY=1",sys.argv[1])'
    host.run(['python3', '-c', send, path], user=deployment.user('stranger'))
    assert running.finish().status == 1


def test_an_interrupt_takes_back_what_is_not_ready(deployment: Deployment) -> None:
    deployment.sleep('done')
    deployment.sleep('waits', start_index=1, ready=ready.tcp(1))
    running = deployment.begin()
    pid = running.wait_for('component_started', 'waits')['pid']
    running.interrupt()
    ended = running.finish()
    assert ended.status == 130
    wait_until(lambda: not deployment.runs(pid), 'its end')
    assert len(deployment.sleepers()) == 1


def test_a_broken_connection_while_waiting(deployment: Deployment, go: str) -> None:
    """The run finds out afterwards that the component has become ready, and goes on."""
    add(deployment, 'first', SERVER, 'file', go, ready=ready.file('there'))
    deployment.sleep('second', start_index=1)
    running = deployment.begin()
    running.wait_for('component_started', 'first')
    host = deployment.host()
    kill(host, signal.SIGKILL, *(sshd.pid for sshd in connections(host)))
    running.wait_for('host_connected', host='h1')
    host.run(['touch', go])
    ended = running.finish()
    assert ended.status == 0, ended.stderr
    assert len(deployment.sleepers()) == 1


@pytest.mark.parametrize(
    ('how', 'fault'),
    [
        ('soon', "ready must be one of ready.tcp, ready.http, ready.log and so on, is 'soon'"),
        (ready.tcp(0), 'ready = ready.tcp(...): the port must be a number from 1 to 65535, is 0'),
        (ready.http('localhost'), "the URL must begin with http://HOST or https://HOST, is 'localhost'"),
        (ready.http('http://x', status=5), 'the status must be a number from 100 to 599, is 5'),
        (ready.log('('), "'(' is no regular expression: "),
        (ready.command([]), 'there is no command'),
        (ready.command('ls'), 'must be a list'),
        (ready.command(['ls'], interval=-1), 'must be a number of seconds from 0, is -1'),
        (ready.file(''), 'is empty'),
    ],
)
def test_faults(how: object, fault: str) -> None:
    component = Component(name='a', host='h', executable='x', ready=how)
    _, faults = component.read()
    assert len(faults) == 1
    assert fault in faults[0]
