"""RR6, RR7: what a run does in which order, on which hosts, and what it leaves alone when something is wrong."""

from __future__ import annotations

import os
import re
import selectors
import shutil
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.commands import ROOT, Done, Site, alias_of, component, eventually_exists, nothing_runs, ssh_config
from tests.deploying import agents, connections
from tests.testbed import Testbed
from tests.testbed.process import wait_until

Beds = Callable[..., Testbed]
Json = dict[str, Any]


@pytest.fixture
def site(bed: Testbed, tmp_path: Path) -> Iterator[Site]:
    with Site(bed, tmp_path) as site:
        yield site


class Silent:
    """Ports of this machine that take connections and never say a word; a context manager."""

    def __init__(self, count: int = 1) -> None:
        self._listeners = [socket.create_server(('127.0.0.1', 0)) for _ in range(count)]
        self.ports = [listener.getsockname()[1] for listener in self._listeners]
        self.connections = 0
        self.most_at_once = 0
        self._thread = threading.Thread(target=self._serve)
        self._stop, self._stopped = socket.socketpair()

    def __enter__(self) -> Silent:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.close()
        self._thread.join()
        for listener in self._listeners:
            listener.close()
        self._stopped.close()

    def _serve(self) -> None:
        open_now: set[socket.socket] = set()
        source: socket.socket
        with selectors.DefaultSelector() as selector:
            for source in (*self._listeners, self._stopped):
                selector.register(source, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    assert isinstance(key.fileobj, socket.socket)
                    source = key.fileobj
                    if source is self._stopped:
                        for connection in open_now:
                            connection.close()
                        return
                    if source in self._listeners:
                        connection, _ = source.accept()
                        open_now.add(connection)
                        selector.register(connection, selectors.EVENT_READ)
                        self.connections += 1
                        self.most_at_once = max(self.most_at_once, len(open_now))
                    elif not _said(source):
                        selector.unregister(source)
                        open_now.discard(source)
                        source.close()


def _said(connection: socket.socket) -> bytes:
    try:
        return connection.recv(4096)
    except ConnectionError:
        return b''


def errors(done: Done) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith('ERROR: ')]


class TestOrder:
    def test_everywhere_one_thing_after_the_other(self, site: Site) -> None:
        site.file('file')
        hosts = ['h1', 'h2', 'h3']
        site.write(
            *[
                component(name, host, files={'file': 'file'}, start_index=index)
                for host in hosts
                for name, index in [('late', 7), ('first', -3), ('middle', 0), ('early', -3)]
            ]
        )
        site.deploy()
        done = site.deploy()
        kinds = [event['event'] for event in done.objects]
        assert (kinds[0], kinds[-1]) == ('run_started', 'run_ended')

        def span(kind: str, count: int, *components: str) -> tuple[int, int]:
            found = [
                number
                for number, event in enumerate(done.objects)
                if event['event'] == kind and (not components or event['component'] in components)
            ]
            assert len(found) == count, kind
            return found[0], found[-1]

        story = [
            span('host_connecting', 3),
            span('host_connected', 3),
            span('session_quit', 3),
            span('files_compared', 3),
            span('files_sent', 3),
            span('component_starting', 6, 'first', 'early'),
            span('component_started', 6, 'first', 'early'),
            span('component_starting', 3, 'middle'),
            span('component_started', 3, 'middle'),
            span('component_starting', 3, 'late'),
            span('component_started', 3, 'late'),
        ]
        # With what follows, on other hosts.
        parallel = {'host_connecting', 'session_quit', 'files_compared', 'component_starting'}
        for (first, earlier), (later, last) in pairwise(story):
            assert first < later
            assert earlier < last
            assert earlier < later or kinds[first] in parallel, kinds[first]
        times = [event['time'] for event in done.objects]
        assert times == sorted(times)
        started = done.event('run_started')
        assert started['session'] == site.session
        assert sorted(started['hosts']) == hosts
        assert {index: len(labels) for index, labels in started['components'].items()} == {'-3': 6, '0': 3, '7': 3}
        assert done.event('run_ended')['exit_status'] == 0

    def test_muddlers_come_before_the_check(self, site: Site) -> None:
        site.write("config.add_component(Component(name='x'))\nconfig.add_component(Component(name='y', host='h1'))\n")
        muddler = site.file(
            'muddler.py',
            'def muddle(config):\n'
            '    for number, component in enumerate(config.all_components()):\n'
            "        component.host, component.executable, component.args = f'h{number + 1}', '/bin/sleep', [100000]\n",
        )
        done = site.deploy('-m', muddler)
        assert {(event['component'], event['host']) for event in done.events('component_started')} == {
            ('x', 'h1'), ('y', 'h2')
        }  # fmt: skip
        assert '2 faults' in site.deploy(status=2).stderr


class TestFaults:
    def test_all_in_one_report_and_no_host_is_touched(self, site: Site) -> None:
        site.file('there')
        with Silent() as silent:
            host = f'root@127.0.0.1:{silent.ports[0]}'
            good = component('good', host)
            site.write(
                good,
                component('good', host),
                component('lost', host, files={'gone/file': 'x'}),
                component('local', 'localhost', files={'there': 'x'}),
                f"config.add_component(Component(name='half', host={host!r}))\n",
                component('typed', host, start_index='first'),
                component('none', host, args=['a', None]),
                component('nowhere', 'a b c'),
            )
            done = site.deploy(status=2)
            assert done.objects == []
            [first] = errors(done)
            assert re.search(r'\b7 faults\b', first)
            for words in (
                ['good', 'twice|already|more than once|same'],
                ['lost', 'gone/file'],
                ['local', 'files'],
                ['half', 'executable'],
                ['typed', 'start_index'],
                ['none', r'\b1\b|\b2\b|second'],
                ['nowhere', 'a b c'],
            ):
                found = [line for line in done.stderr.splitlines() if all(re.search(word, line) for word in words)]
                assert len(found) == 1, words
            assert silent.connections == 0
            site.write(good)
            site.deploy('--connect-timeout', '0.5', status=3)
            assert silent.connections > 0

    @pytest.mark.parametrize(
        'arguments',
        [
            ['--extra-args', 'x'],
            ['-m', 'no-such-muddler.py'],
            ['-m', 'empty.py'],
            ['-a', 'empty.py', '--extra-args', 'x'],
            ['--screen', 'no/name'],
            ['--only', 'nobody'],
            ['--limit', 'nowhere'],
            ['--fanout', '0'],
            ['--connect-timeout', 'soon'],
        ],
        ids=' '.join,
    )
    def test_of_the_command_line(self, site: Site, arguments: list[str]) -> None:
        site.file('empty.py', '')
        with Silent() as silent:
            site.write(component('x', f'127.0.0.1:{silent.ports[0]}'))
            done = site.deploy(*arguments, status=2, cwd=site.folder)
            assert len(errors(done)) == 1
            assert 'Traceback' not in done.stderr
            assert silent.connections == 0


class TestUnreachable:
    @pytest.fixture
    def partly(self, bed: Testbed, tmp_path: Path) -> Iterator[Site]:
        """Components on h1 and h2 that run already, and then a third host that refuses connections."""
        with Site(bed, tmp_path, ssh_config(tmp_path, bed, 'Host dead\n  HostName 127.0.0.1\n  Port 9\n')) as site:
            site.file('file', 'old')
            here: Json = {'base_dir': f'/tmp/base-{site.session}', 'files': {'file': 'file'}}
            site.write(component('x', 'h1', **here), component('x', 'h2', **here))
            site.deploy()
            site.file('file', 'new')
            site.write(component('x', 'h1', **here), component('y', 'dead', **here), component('x', 'h2', **here))
            yield site
            for name in ('h1', 'h2'):
                shutil.rmtree(bed[name].path(f'/tmp/base-{site.session}'))

    def content(self, site: Site) -> list[str]:
        return [site.bed[name].path(f'/tmp/base-{site.session}/file').read_text() for name in ('h1', 'h2')]

    def test_stops_before_anything_is_changed(self, partly: Site) -> None:
        hosts = partly.bed.hosts[:2]
        wait_until(lambda: not any(connections(host) or agents(host) for host in hosts), 'the first run to hang up')
        before = [(host.processes(), partly.deployment.windows(host.name)) for host in hosts]
        done = partly.deploy(status=3)
        assert done.event('host_failed')['host'] == 'dead'
        assert {event['host'] for event in done.events('host_connected')} == {'h1', 'h2'}
        [line] = [line for line in errors(done) if 'dead' in line]
        assert re.match(r'ERROR: dead: .*refused', line)
        assert 'nothing was changed' in done.stderr
        assert '--skip-unreachable' in done.stderr
        for kind in ('session_quit', 'files_compared', 'files_sent', 'component_starting'):
            assert not done.events(kind)
        assert done.event('run_ended')['exit_status'] == 3
        wait_until(lambda: not any(connections(host) or agents(host) for host in hosts), 'the second run to hang up')
        now = [(host.processes(), partly.deployment.windows(host.name)) for host in hosts]
        assert now == before
        assert self.content(partly) == ['old', 'old']

    def test_skipped(self, partly: Site) -> None:
        done = partly.deploy('--skip-unreachable')
        assert {(event['component'], event['host']) for event in done.events('component_started')} == {
            ('x', 'h1'), ('x', 'h2')
        }  # fmt: skip
        assert self.content(partly) == ['new', 'new']
        last = done.stderr.splitlines()[-1]
        assert 'dead' in last
        assert last.startswith('WARNING: ')
        done = partly.run(*partly.arguments('--skip-unreachable'))
        assert 'dead' in (done.stdout + done.stderr).splitlines()[-1]

    def test_all_of_them_cannot_be_skipped(self, partly: Site) -> None:
        done = partly.deploy('--skip-unreachable', '--limit', 'dead', status=3)
        assert re.match(r'ERROR: dead: .*refused', errors(done)[0])

    def test_several_in_one_line_each(self, partly: Site, bed: Testbed) -> None:
        bed['h2'].cut()
        try:
            done = partly.deploy('--connect-timeout', '1', status=3)
        finally:
            bed['h2'].heal()
        lines = done.stderr.splitlines()
        assert len([line for line in lines if re.search(r'\bdead: .*refused', line)]) == 1
        [cut] = [line for line in lines if re.search(r'\bh2: ', line)]
        assert '1 s' in cut
        assert {event['host'] for event in done.events('host_failed')} == {'dead', 'h2'}
        assert {event['host'] for event in done.events('host_connected')} == {'h1'}
        assert 'Traceback' not in done.stderr

    def test_no_further_than_the_fanout_at_once(self, site: Site) -> None:
        with Silent(3) as silent:
            site.write(*[component('x', f'root@127.0.0.1:{port}') for port in silent.ports])
            site.deploy('--connect-timeout', '0.5', '--fanout', '1', status=3)
            assert (silent.connections, silent.most_at_once) == (3, 1)
            site.deploy('--connect-timeout', '1', status=3)
            assert silent.most_at_once == 3


class TestChoosing:
    def started(self, done: Done) -> set[str]:
        return {f'{event["component"]}@{event["host"]}' for event in done.events('component_started')}

    def test_components_and_hosts(self, site: Site) -> None:
        with Silent() as silent:
            elsewhere = f'root@127.0.0.1:{silent.ports[0]}'
            site.write(
                *[component(name, host) for host in ('h1', 'h2') for name in ('pub-1', 'pub-2', 'sub')],
                component('far', elsewhere),
            )
            assert self.started(site.deploy('--only', 'sub')) == {'sub@h1', 'sub@h2'}
            assert self.started(site.deploy('--only', 'pub-*@h2,sub@h1')) == {'pub-1@h2', 'pub-2@h2', 'sub@h1'}
            assert self.started(site.deploy('--limit', 'h2')) == {'pub-1@h2', 'pub-2@h2', 'sub@h2'}
            done = site.deploy('--limit', 'h[1-2]', '--only', 'pub-1', '--only', 'sub@h1', '--fanout', '1')
            assert self.started(done) == {'pub-1@h1', 'pub-1@h2', 'sub@h1'}
            done = site.deploy('--only', 'pubb-1', status=2)
            assert 'pub-1' in errors(done)[0]
            assert silent.connections == 0

    def test_hosts_that_are_left_out_stay_as_they_are(self, site: Site) -> None:
        site.write(component('x', 'h1'), component('x', 'h2'))
        first = site.deploy()
        site.deploy('--limit', 'h2')
        pid = first.event('component_started', host='h1')['pid']
        assert site.deployment.runs(pid, 'h1')
        assert not site.deployment.runs(first.event('component_started', host='h2')['pid'], 'h2')


class TestTwoNamesOfOneMachine:
    @pytest.fixture
    def named(self, bed: Testbed, tmp_path: Path) -> Iterator[Site]:
        names = alias_of(bed, 'h1', 'alias', bed['h1'].address)
        with Site(bed, tmp_path, ssh_config(tmp_path, bed, names)) as site:
            yield site

    def test_are_one_host_with_one_session(self, named: Site, bed: Testbed) -> None:
        address = bed['h1'].address
        named.file('file')
        base = f'/tmp/base-{named.session}'
        files: Json = {'base_dir': base, 'files': {'file': 'file'}}
        named.write(
            component('a', 'h1', **files),
            component('b', 'alias', **files, start_index=1),
            component('c', address, **files),
            component('d', f'root@{address}'),
        )
        done = named.deploy()
        assert sorted(named.deployment.windows('h1').values()) == ['a', 'b', 'c', 'd']
        assert {(event['host'], event['same_as']) for event in done.events('host_merged')} == {
            ('alias', 'h1'), (address, 'h1'), (f'root@{address}', 'h1')
        }  # fmt: skip
        assert done.event('files_sent')['host'] == 'h1'
        assert len(done.events('component_started')) == 4
        assert done.event('files_sent')['sent'] == 1
        assert sorted(event['window'] for event in done.events('component_started')) == [0, 1, 2, 3]
        again = named.deploy()
        assert again.event('session_quit')['sessions'] == 1
        assert sorted(named.deployment.windows('h1').values()) == ['a', 'b', 'c', 'd']
        shutil.rmtree(bed['h1'].path(base))

    def test_cannot_have_two_components_of_one_name(self, named: Site) -> None:
        named.write(component('a', 'h1'))
        first = named.deploy()
        named.write(component('a', 'h1'), component('a', 'alias'), component('a', 'h2'))
        done = named.deploy(status=2)
        [line] = [line for line in done.stderr.splitlines() if 'a@alias' in line]
        assert 'a@h1' in line
        assert not done.events('session_quit')
        assert not done.events('component_starting')
        assert named.deployment.runs(first.event('component_started')['pid'])

    def test_cannot_have_two_files_of_one_path(self, named: Site, bed: Testbed) -> None:
        named.file('one', 'one')
        named.file('two', 'two')
        path = f'/tmp/target-{named.session}'
        named.write(component('a', 'h1', files={'one': path}), component('b', 'alias', files={'two': path}))
        done = named.deploy(status=2)
        assert path in done.stderr
        assert not bed['h1'].path(path).exists()

    def test_with_two_users_are_two_hosts(self, named: Site, bed: Testbed) -> None:
        bed['h1'].add_user('somebody')
        named.write(component('a', 'h1'), component('a', 'somebody@alias'))
        done = named.deploy()
        assert not done.events('host_merged')
        assert len(done.events('component_started')) == 2
        for user in (None, 'somebody'):
            assert list(named.deployment.windows('h1', user).values()) == ['a']


class TestThisMachine:
    PROGRAM = '#!/bin/sh\n{ pwd; echo "$SSH_CONNECTION"; id -un; } >"$1"; exec sleep 100000\n'

    def test_needs_no_ssh(self, site: Site) -> None:
        """There is no ssh to be found, no ssh_config, and a program named relative to the config."""
        site.file('bin/program', self.PROGRAM, 0o755)
        (site.folder / 'work').mkdir()
        outs = [site.folder / f'out-{number}' for number in range(3)]
        site.write(
            component('relative', 'localhost', 'bin/program', [outs[0].as_posix()], base_dir='work'),
            component('absolute', 'localhost', str(site.folder / 'bin/program'), [str(outs[1])], base_dir='/usr'),
            component('fresh', 'localhost', './bin/program', [str(outs[2])]),
        )
        path = site.folder / 'path'
        path.mkdir()
        for name in ('screen', 'python3', 'sh', 'sleep', 'id'):
            (path / name).symlink_to(shutil.which(name) or name)
        arguments = ['-c', str(site.config), '--screen', site.session, '--json']
        done = site.run(*arguments, cwd='/', variables={'PATH': str(path)})
        assert len(done.events('component_started', host='localhost')) == 3
        seen = [eventually_exists(out).read_text().splitlines() for out in outs]
        assert seen[0] == [str(site.folder / 'work'), '', 'root']
        assert seen[1] == ['/usr', '', 'root']
        fresh = Path(seen[2][0])
        assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
        assert list(fresh.iterdir()) == []
        done = site.run(*arguments, cwd='/', variables={'PATH': str(path)})
        wait_until(lambda: outs[2].read_text().splitlines()[0] != str(fresh), 'another fresh folder')
        assert done.event('session_quit', host='localhost')['sessions'] == 1
        assert len(site.sessions_here()) == 1

    def test_beside_others(self, site: Site) -> None:
        out = site.folder / 'out'
        site.file('program', self.PROGRAM, 0o755)
        here: Json = {'files': {'program': 'program'}, 'base_dir': f'/tmp/base-{site.session}'}
        site.write(
            component('x', 'h1', 'program', ['out'], **here),
            component('x', 'localhost', 'program', [str(out)], base_dir='/', start_index=1),
            component('z', 'h2', start_index=2),
        )
        done = site.deploy()
        assert [event['host'] for event in done.events('component_started')] == ['h1', 'localhost', 'h2']
        assert eventually_exists(out).read_text().splitlines()[:2] == ['/', '']
        assert len(site.sessions_here()) == 1
        there = eventually_exists(site.bed['h1'].path(f'/tmp/base-{site.session}/out')).read_text().splitlines()
        assert there[0] == f'/tmp/base-{site.session}'
        assert there[1] != ''
        shutil.rmtree(site.bed['h1'].path(f'/tmp/base-{site.session}'))

    def test_a_local_component_sends_no_files(self, site: Site) -> None:
        site.file('file')
        site.write(component('x', 'localhost', files={'file': 'file'}))
        done = site.deploy(status=2)
        assert 'x@localhost' in done.stderr
        assert 'files' in done.stderr

    def test_as_an_ordinary_user_without_sshd(self, fresh_bed: Beds) -> None:
        bed = fresh_bed()
        host = bed['h1']
        host.stop_sshd()
        home = host.add_user('plain')
        host.share('/tmp/rr', ROOT)
        host.share('/tmp/python', Path(sys.base_prefix))
        packages = next(path for path in sys.path if path.endswith('site-packages') and path.startswith(sys.prefix))
        host.share('/tmp/packages', Path(packages))
        variables = ['PYTHONHOME=/tmp/python', 'PYTHONPATH=/tmp/rr:/tmp/packages', 'PYTHONDONTWRITEBYTECODE=1']
        python = f'/tmp/python/bin/python{sys.version_info.major}.{sys.version_info.minor}'
        command = ['env', *variables, python, '-m', 'remote_runner']
        ended = host.run([*command, '-c', '/tmp/rr/example/local.py'], user='plain')
        assert re.search(r'clock +localhost', ended.stdout.decode())
        [ours] = [process for process in host.processes() if process.argv[0].endswith('SCREEN')]
        assert os.stat(host.root / 'proc' / str(ours.pid)).st_uid == host.account('plain').uid
        shown = host.run(['screen', '-S', f'{ours.pid}.runner', '-Q', 'windows', '%t '], user='plain').stdout
        assert shown.split() == [b'clock', b'countdown']
        assert not host.path(f'{home}/.ssh/known_hosts').exists()
        host.run(['screen', '-S', f'{ours.pid}.runner', '-X', 'quit'], user='plain')
        nothing_runs(host)
