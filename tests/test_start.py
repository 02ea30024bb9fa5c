"""RR7, LB1: the order of starting, and in what circumstances a program finds itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.attaching import attached
from tests.deploying import Deployment, ancestors, connections, deploying
from tests.testbed import Testbed
from tests.testbed.process import wait_until

FreshBed = Callable[..., Testbed]

# Tells all that a program can know of its circumstances, as JSON in the file `seen`.
_LOOK = """\
import json, os, termios
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
def is_open(number):
    try:
        return os.fstat(number) is not None
    except OSError:
        return False
seen = {
    "cwd": os.getcwd(),
    "umask": status["Umask"].strip(),
    "descriptors": [number for number in range(777) if is_open(number)],
    "terminals": [os.ttyname(number) for number in (0, 1, 2)],
    "controlling": os.isatty(os.open("/dev/tty", os.O_RDWR)),
    "leader": os.getsid(0) == os.getpid() == os.getpgrp() == os.tcgetpgrp(0),
    "files": [line.split()[3] for line in open("/proc/self/limits") if line.startswith("Max open files")],
    "niceness": os.nice(0),
    "echo": bool(termios.tcgetattr(0)[3] & termios.ECHO),
}
with open("seen.new", "w") as file:
    json.dump(seen, file)
os.rename("seen.new", "seen")
import time
time.sleep(100000)
"""

# Signals 32 and 33 are no one's but the C library's, which ignores them in what it starts by posix_spawn(3).
_OF_THE_C_LIBRARY = 1 << 31 | 1 << 32

# The order of starting


def test_components_of_one_index_start_at_once_and_of_the_next_after_them(deployment: Deployment) -> None:
    """The two of an index need each other to get through their grace; the last needs all before it."""
    first = 'touch /tmp/order-{0}; while [ ! -e /tmp/order-{1} ]; do sleep 0.01; done; touch /tmp/met-{0}; sleep 100000'
    last = 'test -e /tmp/order-a -a -e /tmp/order-b || exit 9; sleep 100000'
    for host in ('h1', 'h2'):
        deployment.sh('last', last, host, start_index=10)
        deployment.sh('a', first.format('a', 'b'), host, start_index=-1, start_grace=0.3)
        deployment.sh('b', first.format('b', 'a'), host, start_index=-1, start_grace=0.3)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    for host in ('h1', 'h2'):
        deployment.appears('/tmp/met-a', host)
        deployment.appears('/tmp/met-b', host)
    story = [(event['event'], event['component']) for event in ended.events if 'component' in event]
    assert story.index(('component_starting', 'last')) > max(
        number for number, (kind, name) in enumerate(story) if kind == 'component_started' and name != 'last'
    )


def test_the_next_index_waits_for_the_grace_of_the_one_before(deployment: Deployment) -> None:
    deployment.sh('slow', 'sleep 0.5; exit 4', start_grace=100)
    deployment.sh('next', 'touch /tmp/next-ran; sleep 100000', 'h2', start_index=1)
    ended = deployment.run()
    assert ended.status == 1
    assert '4' in ended.failure('slow')
    assert 'next' not in ended.names('component_starting')
    assert not deployment.host('h2').path('/tmp/next-ran').exists()


def test_each_component_is_reported_with_its_pid_and_its_window(deployment: Deployment) -> None:
    for name in ('a', 'b', 'c'):
        deployment.sleep(name, 'h2')
    deployment.sleep('a', 'h3', start_index=1)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert ended.labels('component_started') == ['a@h2', 'a@h3', 'b@h2', 'c@h2']
    assert ended.the('run_ended')['exit_status'] == 0
    for event in ended.of('component_started'):
        host = deployment.host(event['host'])
        assert (host.root / f'proc/{event["pid"]}/cmdline').read_bytes() == b'/bin/sleep\x00100000\x00'
        assert deployment.windows(event['host'])[event['window']] == event['component']
        session = deployment.the_session(event['host'])
        assert session.pid in [above.pid for above in ancestors(host, event['pid'])]


def test_text_on_stderr_is_no_failure(deployment: Deployment) -> None:
    deployment.sh('noisy', 'echo ERROR: fatal >&2; printf "\\033c\\377\\376" >&2; exec sleep 100000')
    ended = deployment.run()
    assert ended.status == 0, ended.stderr


def test_a_component_on_this_machine_needs_no_ssh(deployment: Deployment, tmp_path: Path) -> None:
    deployment.sh('here', 'tty >seen; pwd >>seen; exec sleep 100000', 'localhost', base_dir=str(tmp_path))
    deployment.sleep('there', 'h1', start_index=1)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    seen = tmp_path / 'seen'
    wait_until(lambda: seen.exists() and seen.read_text().count('\n') == 2, 'the local program to run')
    assert seen.read_text().startswith('/dev/pts/')
    assert seen.read_text().endswith(f'\n{tmp_path}\n')
    assert (Path('/proc') / str(ended.pid('here')) / 'cmdline').read_bytes() == b'sleep\x00100000\x00'


# Circumstances


def _seen(deployment: Deployment, **attributes: Any) -> dict[str, Any]:
    """What a program sees of its circumstances."""
    folder = f'/tmp/{deployment.session}'
    deployment.python('looker', _LOOK, base_dir=folder, **attributes)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    seen: dict[str, Any] = json.loads(deployment.written(f'{folder}/seen'))
    assert seen['cwd'] == folder
    return seen


def test_a_program_finds_what_ssh_would_give_it_and_a_terminal_of_its_own(deployment: Deployment) -> None:
    with deployment.file('/root/.bashrc', 'umask 027; ulimit -n 777\n'):
        seen = _seen(deployment)
    assert seen['umask'] == '0027'
    assert seen['files'] == ['777']
    assert seen['descriptors'] == [0, 1, 2]
    assert len(set(seen['terminals'])) == 1
    assert seen['controlling']
    assert seen['leader']
    assert seen['echo']
    assert seen['niceness'] == 0


def test_no_signal_is_ignored_or_blocked(deployment: Deployment) -> None:
    """Above all not SIGPIPE, which every program below a Python ignores unless someone takes care."""
    deployment.add('looker', '/bin/cp', ['/proc/self/status', '/tmp/status'])
    assert deployment.run().status == 0
    status = dict(line.split(maxsplit=1) for line in deployment.written('/tmp/status').splitlines() if '\t' in line)
    assert int(status['SigBlk:'], 16) == 0
    assert int(status['SigIgn:'], 16) & ~_OF_THE_C_LIBRARY == 0


def test_a_broken_pipe_ends_a_program_as_in_any_shell(deployment: Deployment) -> None:
    deployment.sh('pipe', '(yes; echo $? >/tmp/status) | head -1; sleep 100000')
    assert deployment.run().status == 0
    assert deployment.written('/tmp/status') == '141\n'


def test_without_base_dir_it_is_a_fresh_folder_each_time(deployment: Deployment) -> None:
    deployment.sh('one', 'stat -c %a . >mode; ls -A >content; pwd >/tmp/cwd-one; sleep 100000')
    deployment.sh('two', 'pwd >/tmp/cwd-two; sleep 100000')
    folders = set()
    for _ in range(2):
        assert deployment.run().status == 0
        for name in ('one', 'two'):
            folders.add(deployment.written(f'/tmp/cwd-{name}').strip())
            deployment.host().path(f'/tmp/cwd-{name}').unlink()
    assert len(folders) == 4
    [folder] = [folder for folder in folders if deployment.host().path(f'{folder}/mode').exists()][:1]
    assert deployment.text(f'{folder}/mode') == '700\n'
    assert deployment.text(f'{folder}/content').split() == ['content', 'mode']


def test_base_dir_is_made_and_entered(deployment: Deployment) -> None:
    folders = {
        '~': '/root',
        '~/some/folder': '/root/some/folder',
        'relative/to/home': '/root/relative/to/home',
        '/tmp/with space $HOME \'"*': '/tmp/with space $HOME \'"*',
        '/tmp/ä\n/语': '/tmp/ä\n/语',
    }
    for number, base_dir in enumerate(folders):
        deployment.sh(f'in-{number}', f'/bin/pwd >/tmp/cwd-{number}; sleep 100000', base_dir=base_dir)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    for number, folder in enumerate(folders.values()):
        assert deployment.written(f'/tmp/cwd-{number}') == f'{folder}\n'


def test_a_program_that_closes_its_terminal_runs_on(deployment: Deployment) -> None:
    program = 'import os, time; os.closerange(0, 100); open("/tmp/closed", "w").write("x"); time.sleep(100000)'
    deployment.python('daemon', program, start_grace=0.5)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert deployment.written('/tmp/closed') == 'x'
    assert deployment.runs(ended.pid('daemon'))
    deployment.quit()
    assert not deployment.runs(ended.pid('daemon'))


def test_a_full_disk_holds_no_program_back(fresh_bed: FreshBed, tmp_path: Path) -> None:
    with deploying(fresh_bed(1), tmp_path) as deployment:
        deployment.host().tmpfs('/root/.local/state', '1M')
        deployment.sh('printer', 'seq 1000000; touch /tmp/all-is-printed; sleep 100000')
        ended = deployment.run()
        assert ended.status == 0, ended.stderr
        deployment.appears('/tmp/all-is-printed')
        assert deployment.runs(ended.pid('printer'))

        deployment.host().run(['sh', '-c', 'dd if=/dev/zero of=/root/.local/state/full 2>/dev/null || true'])
        deployment.clear()
        deployment.sleep()
        ended = deployment.run()
        assert ended.status == 1  # the description of what to start finds no place
        assert 'No space left' in ended.failure('sleeper')
        assert deployment.sleepers() == []


def test_nobody_else_may_read_what_programs_get_and_print(deployment: Deployment) -> None:
    host = deployment.host('h3')
    alice, bob = deployment.user('alice', 'h3'), deployment.user('bob', 'h3')
    home = f'/home/{alice}'
    host.run(['chmod', '755', home])
    deployment.sh('talker', 'echo a secret; sleep 100000', f'{alice}@h3')
    with deployment.file(f'{home}/.bashrc', 'umask 0\n', 'h3'):
        assert deployment.run().status == 0
    theirs = ['find', home, '/tmp', '/run/screen', '-path', '*remote_runner*', '-user', alice]
    as_alice = host.run([*theirs, '-readable', '-type', 'f'], check=False).stdout.decode().split()
    assert any(path.endswith('output.log') for path in as_alice)
    as_bob = host.run([*theirs, '-readable', '-type', 'f'], user=bob, check=False).stdout.decode().split()
    assert [path for path in as_bob if not path.endswith('.pyc')] == []
    assert host.run([*theirs, '-writable'], user=bob, check=False).stdout == b''


# At its terminal


def test_the_program_follows_the_size_of_the_terminal_that_is_attached(deployment: Deployment, tmp_path: Path) -> None:
    program = """\
import os, signal, time
def tell(*_):
    size = os.get_terminal_size(0)
    print("size", size.columns, size.lines, flush=True)
signal.signal(signal.SIGWINCH, tell)
tell()
while True: time.sleep(1000)
"""
    deployment.python('sized', program)
    assert deployment.run().status == 0
    with attached(deployment.bed, 'h1', deployment.session, tmp_path, width=93, height=31) as terminal:
        terminal.wait_for('size 93 31')
        terminal.resize(71, 17)
        terminal.wait_for('size 71 17')


def test_keys_reach_the_program_and_ctrl_c_nothing_but_the_program(deployment: Deployment, tmp_path: Path) -> None:
    script = 'trap "echo interrupted" INT; while read -r line; do echo "got <$line>"; done; exec sleep 100000'
    deployment.sh('shell', script)
    ended = deployment.run()
    assert ended.status == 0
    with attached(deployment.bed, 'h1', deployment.session, tmp_path) as terminal:
        terminal.press('ä b', 'Enter')
        terminal.wait_for('got <ä b>')
        terminal.press('C-c')
        terminal.wait_for('interrupted')
        terminal.press('C-d')
        wait_until(lambda: deployment.argv(ended.pid('shell'))[0] == 'sleep', 'the end of file to be read')
        terminal.press('C-c')
        deployment.ends(ended.pid('shell'))
    assert deployment.windows() == {0: 'shell'}


def test_a_shell_with_job_control_works_as_in_any_terminal(deployment: Deployment, tmp_path: Path) -> None:
    deployment.add('shell', '/bin/bash', ['--norc', '-i'])
    assert deployment.run().status == 0
    with attached(deployment.bed, 'h1', deployment.session, tmp_path) as terminal:
        terminal.press('PS1=ready-', 'Enter')
        terminal.wait_for('ready-')
        terminal.press('sleep 4242', 'Enter')
        wait_until(lambda: deployment.processes('4242') != [], 'the job to run')
        terminal.press('C-z')
        terminal.wait_for('Stopped')
        terminal.press('kill %1; wait; echo "the job $((40 + 2))"', 'Enter')
        terminal.wait_for('the job 42')
    assert deployment.processes('4242') == []


# What goes on


def test_programs_go_on_after_remote_runner_and_all_connections_are_gone(deployment: Deployment) -> None:
    deployment.sh('counter', 'n=0; while :; do n=$((n+1)); echo $n >/tmp/count; echo $n; sleep 0.05; done')
    ended = deployment.run()
    assert ended.status == 0
    host = deployment.host()
    wait_until(lambda: not connections(host), 'the connections to be closed')
    count = int(deployment.written('/tmp/count'))
    wait_until(lambda: int(deployment.written('/tmp/count')) > count + 5, 'the counter to go on')
    assert deployment.runs(ended.pid('counter'))


def test_the_folders_of_many_old_runs_are_removed(deployment: Deployment) -> None:
    folder = f'/root/.local/state/remote_runner/hosts/h1/{deployment.session}'
    for number in range(12):
        deployment.host().run(['mkdir', '-p', f'{folder}/20200101-0000{number:02}-0000/0'])
    deployment.sleep()
    run = deployment.run().events[0]['run']
    names = [f'20200101-0000{number:02}-0000' for number in range(8, 12)]
    runs = deployment.host().path(folder)
    wait_until(lambda: len(list(runs.glob('*-*-*'))) == 5, 'the old folders to go')
    assert sorted(path.name for path in runs.glob('*-*-*')) == [*names, run]
