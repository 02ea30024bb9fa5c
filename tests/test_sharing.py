"""SP6: hosts that see the same folder, whatever they call it: one copy is sent, and no two write the same file."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from remote_runner import events
from remote_runner.deploy import bring, sharing, visible
from remote_runner.deploy.bring import Bringer
from remote_runner.errors import RemoteRunnerError, TransferFailed
from remote_runner.events import Events
from remote_runner.files.manifest import Mirror, Placed, Tree
from remote_runner.files.options import CopyOptions
from remote_runner.files.places import Place
from remote_runner.hosts.address import parse_address
from remote_runner.hosts.host import Host
from remote_runner.hosts.pool import connect
from remote_runner.hosts.ssh import Connector
from remote_runner.hosts.ssh_config import SshOptions
from remote_runner.ui.copied import Summary
from tests.commands import Done, Site, component
from tests.deploying import the_agent
from tests.testbed import Testbed, TestHost
from tests.testbed.process import wait_until

Beds = Callable[..., Testbed]

#: Where the hosts have the folder that they share.
MOUNTS = {'h1': '/srv/shared', 'h2': '/srv/of/all', 'h3': '/mnt/data'}
LARGE = os.urandom(1 << 20) * 48


class Shared(Site):
    """A config for hosts that share the folder `there`; each calls it as `MOUNTS` says."""

    def __init__(self, bed: Testbed, folder: Path, hosts: tuple[str, ...] = ('h1', 'h2', 'h3')) -> None:
        config = folder / 'config'
        config.mkdir()
        super().__init__(bed, config)
        self.there = folder / 'there'
        self.there.mkdir()
        for name in hosts:
            bed[name].share(MOUNTS[name], self.there)

    def everywhere(self, files: dict[str, str], below: str = '') -> None:
        """One component a host, with these files."""
        hosts = [host.name for host in self.bed.hosts]
        self.write(*[component('x', name, base_dir=MOUNTS[name] + below, files=files) for name in hosts])

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.there)) for path in self.there.rglob('*') if not path.is_dir())

    def writer(self) -> TestHost:
        """The host that writes a large file; it is in the middle of it."""
        found: list[str] = []

        def some_came() -> bool:
            copies = [path for path in self.there.rglob('.rr-*') if path.stat().st_size]
            found[:] = [path.name.removeprefix('.rr-').split('-')[0] for path in copies]
            return bool(found)

        wait_until(some_came, 'a part of the large file')
        return self.bed[found[0]]


@pytest.fixture
def shared(fresh_bed: Beds, tmp_path: Path) -> Iterator[Shared]:
    with Shared(fresh_bed(3), tmp_path) as site:
        yield site


def sent(done: Done) -> int:
    return sum(event['sent'] for event in done.events('files_sent'))


class TestOneCopyIsSent:
    def test_to_three_hosts(self, shared: Shared) -> None:
        shared.file('large', LARGE)
        shared.file('small')
        shared.everywhere({'large': 'deep/large', 'small': 'small'})
        done = shared.deploy()
        events = done.events('files_sent')
        assert sent(done) == 2
        assert sum(event['bytes'] for event in events) == len(LARGE) + len('content\n')
        [owner] = [event['host'] for event in events if event['sent']]
        for event in events:
            assert set(event['shared_with']) <= {owner}
            assert event['sent'] + event['shared'] <= event['files']
        assert shared.names() == ['deep/large', 'small']
        assert (shared.there / 'deep/large').read_bytes() == LARGE
        assert len(done.events('component_started')) == 3

    def test_one_host_after_the_other(self, shared: Shared) -> None:
        shared.file('a')
        shared.everywhere({'a': 'a'})
        done = shared.deploy('--fanout', '1')
        assert [(event['sent'], event['shared'], event['unchanged']) for event in done.events('files_sent')] == [
            (1, 0, 0), (0, 0, 1), (0, 0, 1)
        ]  # fmt: skip

    def test_the_others_wait_for_it_and_say_with_whom_they_share(self, shared: Shared) -> None:
        shared.file('large', LARGE)
        shared.everywhere({'large': 'large'})
        with shared.begin() as running:
            host = shared.writer()
            agent = the_agent(host).pid
            host.run(['kill', '-STOP', str(agent)])
            assert b'component_starting' not in running.out
            host.run(['kill', '-CONT', str(agent)])
            done = running.end()
        assert done.status == 0, done
        assert sent(done) == 1
        assert done.event('files_sent', sent=1)['host'] == host.name
        for event in done.events('files_sent', sent=0):
            assert (event['shared'], event['shared_with']) in [(1, [host.name]), (0, [])]
        assert shared.names() == ['large']

    def test_always_copied(self, shared: Shared) -> None:
        shared.file('a')
        shared.file('b')
        shared.everywhere({'a': 'a', 'b': 'b'})
        shared.deploy()
        before = {path.name: path.stat().st_ino for path in shared.there.iterdir()}
        done = shared.deploy('--always-copy')
        assert sent(done) == 2
        assert sum(event['shared'] for event in done.events('files_sent')) == 4
        assert all(path.stat().st_ino != before[path.name] for path in shared.there.iterdir())

    def test_what_is_there_costs_nothing(self, shared: Shared) -> None:
        shared.file('a')
        shared.everywhere({'a': 'a'})
        shared.deploy()
        done = shared.deploy()
        for event in done.events('files_sent'):
            assert (event['sent'], event['shared']) == (0, 0)

    def test_links_folders_and_changed_modes(self, shared: Shared) -> None:
        shared.file('tree/file')
        (shared.folder / 'tree/link').symlink_to('file')
        (shared.folder / 'tree/empty').mkdir()
        hosts = [host.name for host in shared.bed.hosts]
        lines = [
            f"config.add_component(Component(name='x', host={name!r}, base_dir={MOUNTS[name]!r},"
            " executable='/bin/sleep', args=[100000], files=util.recursive_files_dict('tree', 'tree', links='keep')))\n"
            for name in hosts
        ]
        shared.write(*lines)
        assert sent(shared.deploy()) == 1
        assert os.readlink(shared.there / 'tree/link') == 'file'
        assert (shared.there / 'tree/empty').is_dir()
        (shared.folder / 'tree/file').chmod(0o751)
        done = shared.deploy()
        assert sum(event['modes'] for event in done.events('files_sent')) == 1
        assert (shared.there / 'tree/file').stat().st_mode & 0o777 == 0o751
        assert shared.names() == ['tree/file', 'tree/link']

    def test_by_copy(self, fresh_bed: Beds, tmp_path: Path) -> None:
        bed = fresh_bed(3)
        there = tmp_path / 'there'
        there.mkdir()
        for host in bed.hosts:
            host.share('/srv/all', there)
        with Site(bed, tmp_path) as site:
            for number in range(300):
                site.file(f'data/{number % 7}/{number}', f'{number}\n')
            done = site.run('copy', '-F', site.ssh_config, '--json', 'h[1-3]', site.folder / 'data', '/srv/all/')
        assert sent(done) == 300
        assert sum(path.is_file() for path in there.rglob('*')) == 300


class TestPartly:
    def test_two_of_three(self, fresh_bed: Beds, tmp_path: Path) -> None:
        with Shared(fresh_bed(3), tmp_path, ('h1', 'h2')) as site:
            site.file('a')
            site.everywhere({'a': 'a'})
            done = site.deploy()
            assert sent(done) == 2
            assert done.event('files_sent', host='h3')['sent'] == 1
            assert (site.there / 'a').read_text() == site.bed['h3'].path('/mnt/data/a').read_text() == 'content\n'

    def test_one_folder_in_the_other(self, shared: Shared) -> None:
        for name in 'fghi':
            shared.file(name, name)
        shared.write(
            component('x', 'h1', base_dir=MOUNTS['h1'], files={'f': 'deep/sub/f', 'g': 'g'}),
            component('y', 'h2', base_dir=f'{MOUNTS["h2"]}/deep/sub', files={'f': 'f', 'h': 'h'}),
            component('z', 'h3', base_dir=f'{MOUNTS["h3"]}/deep', files={'f': './i/../sub/f', 'h': 'sub/h', 'i': 'i'}),
        )
        done = shared.deploy()
        assert sent(done) == 4
        assert shared.names() == ['deep/i', 'deep/sub/f', 'deep/sub/h', 'g']

    def test_what_a_link_leads_out_of_the_folder_goes_to_each_host(self, shared: Shared) -> None:
        (shared.there / 'scratch').symlink_to('/root/scratch')
        (shared.there / 'own').symlink_to('/root/own')
        for host in shared.bed.hosts:
            host.path('/root/scratch').mkdir()
            host.path('/root/own').write_text('of the host')
        shared.file('a')
        for host in shared.bed.hosts:
            shared.file(f'only-{host.name}', host.name)
        files = {'a': 'a', './a': 'scratch/a', 'only-{}': 'scratch/b', './only-{}': 'own'}
        shared.write(
            *[
                component('x', name, base_dir=mount, files={key.format(name): value for key, value in files.items()})
                for name, mount in MOUNTS.items()
            ]
        )
        done = shared.deploy()
        assert sent(done) == 1 + 3 * 3
        for host in shared.bed.hosts:
            assert host.path('/root/scratch/a').read_text() == 'content\n'
            assert host.path('/root/scratch/b').read_text() == host.name
            assert host.path('/root/own').read_text() == host.name

    def test_a_mount_in_the_folder(self, shared: Shared) -> None:
        (shared.there / 'scratch').mkdir()
        shared.bed['h2'].tmpfs(f'{MOUNTS["h2"]}/scratch')
        shared.file('a')
        shared.file('b', 'b')
        shared.everywhere({'a': 'a', 'b': 'scratch/b'})
        assert sent(shared.deploy()) == 3
        assert shared.names() == ['a', 'scratch/b']
        assert shared.bed['h2'].path(f'{MOUNTS["h2"]}/scratch/b').read_text() == 'b'

    def test_folders_that_are_only_called_the_same(self, fresh_bed: Beds, tmp_path: Path) -> None:
        with Site(fresh_bed(3), tmp_path) as site:
            site.file('a')
            site.write(*[component('x', f'h{number}', base_dir='/srv/data', files={'a': 'a'}) for number in (1, 2, 3)])
            done = site.deploy()
            assert sent(done) == 3
            for host in site.bed.hosts:
                assert [path.name for path in host.path('/srv/data').iterdir()] == ['a']

    def test_temporary_folders(self, fresh_bed: Beds, tmp_path: Path) -> None:
        bed = fresh_bed(2)
        there = tmp_path / 'there'
        there.mkdir()
        there.chmod(0o1777)
        for host in bed.hosts:
            host.share('/srv/tmp', there)
            host.path(host.add_user('anne')).joinpath('.bashrc').write_text('export TMPDIR=/srv/tmp\n')
        folder = tmp_path / 'config'
        folder.mkdir()
        with Site(bed, folder) as site:
            site.file('a')
            site.write(*[component('x', f'anne@{host.name}', files={'a': 'a'}) for host in bed.hosts])
            assert sent(site.deploy()) == 2
            assert len(list(there.glob('remote_runner-x-*/a'))) == 2


class TestWhatHostsDoNotAgreeUpon:
    def test_different_content(self, shared: Shared) -> None:
        shared.file('one', 'one')
        shared.file('two', 'two')
        shared.file('same', 'same')
        shared.write(
            component('a', 'h1', base_dir=MOUNTS['h1'], files={'one': 'sub/target', 'same': 'same'}),
            component('b', 'h2', base_dir=f'{MOUNTS["h2"]}/sub', files={'two': 'target'}),
        )
        for _ in range(2):  # what the first try has brought is no excuse for the second
            done = shared.deploy(status=1)
            for word in ('a@h1', 'b@h2', '/srv/shared/sub/target', '/srv/of/all/sub/target', '/one', '/two'):
                assert word in done.stderr
            assert not done.events('component_starting')
            assert (shared.there / 'sub/target').read_text() in ('one', 'two')

    def test_the_plan_says_it_and_ends_as_the_run_would(self, shared: Shared) -> None:
        for name in ('one', 'two', 'same'):
            shared.file(name, name)
        lines = [
            component('a', 'h1', base_dir=MOUNTS['h1'], files={'one': 'sub/target', 'same': 'same'}),
            component('b', 'h2', base_dir=f'{MOUNTS["h2"]}/sub', files={'two': 'target'}),
        ]
        shared.write(*lines)
        done = shared.run('plan', *shared.arguments('--diff', '--json'), status=1)
        for word in ('a@h1', 'b@h2', '/srv/shared/sub/target', '/srv/of/all/sub/target', '/one', '/two'):
            assert word in done.stderr
        shown = json.loads(done.stdout)
        assert len(shown['differences']) == len(shown['unreachable']) == 1
        shared.run('plan', *shared.arguments('--diff', '--skip-unreachable'), status=1)
        assert list(shared.there.iterdir()) == []
        shared.file('two', 'one')
        os.utime(shared.there, ns=(1, 1))
        shown = json.loads(shared.run('plan', *shared.arguments('--diff', '--json')).stdout)
        assert [len(each['send']) for each in shown['differences']] == [2, 1]
        assert shared.there.stat().st_mtime_ns == 1
        assert shared.names() == []

    def test_a_file_and_a_link(self, shared: Shared) -> None:
        shared.file('file')
        (shared.folder / 'tree').mkdir()
        (shared.folder / 'tree/x').symlink_to('elsewhere')
        shared.write(
            component('a', 'h1', base_dir=MOUNTS['h1'], files={'file': 'x'}),
            f"config.add_component(Component(name='b', host='h2', base_dir={MOUNTS['h2']!r}, executable='/bin/sleep',"
            " args=[100000], files=util.recursive_files_dict('tree', '.', links='keep')))\n",
        )
        done = shared.deploy(status=1)
        for word in ('a@h1', 'h2', '/srv/shared/x', '/srv/of/all/', 'a link to elsewhere'):
            assert word in done.stderr

    def test_equal_content_from_two_files(self, shared: Shared) -> None:
        shared.file('one', LARGE)
        shared.file('two', LARGE, 0o600)
        shared.write(
            component('a', 'h1', base_dir=MOUNTS['h1'], files={'one': 'target'}),
            component('b', 'h2', base_dir=MOUNTS['h2'], files={'two': 'target'}),
        )
        done = shared.deploy()
        assert sent(done) == 1
        assert (shared.there / 'target').read_bytes() == LARGE


class TestDeleting:
    """`--delete` where what is in the way of one host is wanted by another."""

    def trees(self, shared: Shared, *below: str) -> None:
        """Component x of each host has a tree of its own: a file for all, and one that only this host has."""
        lines = []
        for (name, mount), folder in zip(MOUNTS.items(), below, strict=False):
            shared.file(f'{name}/all', 'all')
            shared.file(f'{name}/only-{name}/file', name)
            lines.append(
                f"config.add_component(Component(name='x', host={name!r}, base_dir={mount + folder!r},"
                f" executable='/bin/sleep', args=[100000], files=util.recursive_files_dict({name!r}, 'tree')))\n"
            )
        shared.write(*lines)

    def test_only_what_nobody_wants_goes(self, shared: Shared) -> None:
        self.trees(shared, '', '', '')
        wanted = ['tree/all', 'tree/only-h1/file', 'tree/only-h2/file', 'tree/only-h3/file']
        for _ in range(3):
            (shared.there / 'tree/old').mkdir(parents=True, exist_ok=True)
            (shared.there / 'tree/old/file').write_text('old')
            (shared.there / 'tree/only-h1').mkdir(exist_ok=True)
            (shared.there / 'tree/only-h1/old').write_text('old')
            shared.deploy('--delete')
            assert shared.names() == wanted
            assert not (shared.there / 'tree/old').exists()

    def test_a_tree_in_another_one(self, shared: Shared) -> None:
        self.trees(shared, '', '/tree/deep')
        (shared.there / 'tree/deep/tree').mkdir(parents=True)
        (shared.there / 'tree/deep/tree/old').write_text('old')
        shared.deploy('--delete')
        deep = ['tree/deep/tree/all', 'tree/deep/tree/only-h2/file']
        assert shared.names() == ['tree/all', *deep, 'tree/only-h1/file']


class TestTrouble:
    def test_the_agent_that_brings_it_is_killed(self, shared: Shared) -> None:
        shared.file('large', LARGE)
        shared.everywhere({'large': 'large'})
        with shared.begin() as running:
            host = shared.writer()
            host.run(['kill', '-KILL', str(the_agent(host).pid)])
            done = running.end()
        assert done.status == 3
        events = done.events('files_sent')
        assert {event['host'] for event in events} == MOUNTS.keys() - {host.name}
        assert sum(event['sent'] for event in events) == 1
        assert (shared.there / 'large').read_bytes() == LARGE
        left = [name for name in shared.names() if name != 'large']
        assert left
        assert all(name.startswith(f'.rr-{host.name}-') for name in left)
        assert sent(shared.deploy()) == 0
        assert shared.names() == ['large']

    def test_the_mark_of_an_agent_that_is_killed_goes_with_the_next_run(self, shared: Shared) -> None:
        """Also from a folder into which nothing is brought."""
        shared.file('large', LARGE)
        shared.everywhere({'large': 'deep/large'})
        with shared.begin() as running:
            wait_until(lambda: any(shared.there.glob('.rr-*')), 'the mark')
            [mark] = shared.there.glob('.rr-*')
            host = shared.bed[mark.name.split('-')[1]]
            host.run(['kill', '-KILL', str(the_agent(host).pid)])
            done = running.end()
        assert done.status == 3
        assert mark.exists()
        shared.deploy()
        assert shared.names() == ['deep/large']

    def test_a_local_file_that_is_changed_meanwhile(self, shared: Shared) -> None:
        """Whoever waits for it tries, too, and fails as well: nobody hangs."""
        local = shared.file('large', LARGE)
        shared.everywhere({'large': 'large'})
        with shared.begin() as running:
            host = shared.writer()
            agent = str(the_agent(host).pid)
            host.run(['kill', '-STOP', agent])
            os.truncate(local, 1000)
            host.run(['kill', '-CONT', agent])
            done = running.end()
        assert done.status == 1
        assert '/large' in done.stderr
        assert 'large' not in shared.names()

    def test_the_user_gives_up_while_the_agent_that_brings_it_is_silent(self, shared: Shared) -> None:
        shared.file('large', LARGE)
        shared.everywhere({'large': 'large'})
        with shared.begin() as running:
            host = shared.writer()
            agent = str(the_agent(host).pid)
            host.run(['kill', '-STOP', agent])
            running.signal(signal.SIGINT)
            done = running.end()
            host.run(['kill', '-CONT', agent])
        assert done.status == 130
        assert 'Traceback' not in done.stderr
        assert 'large' not in shared.names()
        assert sent(shared.deploy()) == 1
        wait_until(lambda: shared.names() == ['large'], 'that nothing else is left')

    def test_a_folder_that_nobody_may_write_to(self, shared: Shared) -> None:
        shared.there.chmod(0o755)
        for host in shared.bed.hosts:
            host.add_user('anne')
        shared.file('a')
        users = [f'anne@{host.name}' for host in shared.bed.hosts]
        shared.write(*[component('x', user, base_dir=MOUNTS[user[5:]], files={'a': 'a'}) for user in users])
        done = shared.deploy(status=1)
        assert 'ermission denied' in done.stderr
        for mount in MOUNTS.values():
            assert mount in done.stderr
        assert shared.names() == []

    def test_two_users_where_one_may_not_read_what_the_other_brings(self, shared: Shared) -> None:
        shared.there.chmod(0o777)
        for name in ('anne', 'bert'):
            shared.bed['h1'].add_user(name)
        shared.file('a', mode=0o600)
        users = [f'{name}@h1' for name in ('anne', 'bert')]
        shared.write(*[component('x', user, base_dir=MOUNTS['h1'], files={'a': 'a'}) for user in users])
        done = shared.deploy()
        assert sent(done) == 2
        assert shared.names() == ['a']

    def test_what_the_other_host_has_changed_ends_what_runs(self, shared: Shared) -> None:
        local = shared.file('a')
        shared.everywhere({'a': 'a'})
        shared.deploy()
        assert len(shared.deploy('--keep-running').events('component_kept')) == 3
        local.write_text('changed')
        done = shared.deploy('--keep-running')
        assert not done.events('component_kept')
        assert len(done.events('component_started')) == 3
        assert sent(done) == 1


class Two:
    """Two connected hosts that bring `a` into a folder that they share."""

    def __init__(self, site: Shared, hosts: list[Host]) -> None:
        self.site = site
        self.hosts = hosts
        self.asked: Counter[str] = Counter()
        self.local = site.file('a')
        self.begin()

    def begin(self, options: CopyOptions = CopyOptions()) -> None:  # noqa: B008 - it cannot change
        """What follows is of one command."""
        heard: list[dict[str, Any]] = []
        events = Events()
        events.listen(lambda event: heard.append(event.to_dict()))
        self.events, self.bringer = heard, Bringer(options, events)

    def bring(self, host: Host, below: str = '') -> None:
        folder = MOUNTS[host.name] + below
        placed = [Placed(str(self.local), f'{folder}/a')]
        self.bringer.bring(host, self.bringer.manifest(placed, tops=[folder]))

    def sent(self) -> list[tuple[str, int, int]]:
        events = [event for event in self.events if event['event'] == 'files_sent']
        return [(event['host'], event['sent'], event['shared']) for event in events]


@pytest.fixture
def two(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    with ExitStack() as stack:
        connector = stack.enter_context(Connector(SshOptions(config_file=str(shared.ssh_config))))
        hosts = [stack.enter_context(connect(parse_address(name), connector)) for name in ('h1', 'h2')]
        two = Two(shared, hosts)
        call = Host.call

        def counting(host: Host, op: str, **fields: Any) -> Any:
            two.asked[op] += 1
            return call(host, op, **fields)

        monkeypatch.setattr(Host, 'call', counting)
        yield two


class Gate:
    """The first host that sends waits here until it is let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: RemoteRunnerError | None = None) -> None:
        self.arrived, self.opened = threading.Event(), threading.Event()
        self._first: list[Host] = []
        real = bring.send

        def send(host: Host, *arguments: Any) -> int:
            if not self._first:
                self._first.append(host)
                self.arrived.set()
                assert self.opened.wait(60)
                if error is not None:
                    raise error
            return real(host, *arguments)

        monkeypatch.setattr(bring, 'send', send)


def is_waiting(two: Two, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when a host begins to wait for what others bring."""
    waits = threading.Event()
    real = sharing.Turn.others

    def others(turn: sharing.Turn) -> Iterator[Any]:
        if turn.awaited:
            waits.set()
        return real(turn)

    monkeypatch.setattr(sharing.Turn, 'others', others)
    return waits


def test_the_summary_says_with_whom() -> None:
    summary = Summary()
    for name in ('h1', 'h2', 'h3'):
        summary(events.HostConnecting(host=name))
    values = {'files': 9, 'modes': 0, 'seconds': 1.0}
    summary(events.FilesSent(host='h1', sent=9, bytes=90, sent_bytes=90, **values))
    for name in ('h2', 'h3'):
        summary(events.FilesSent(host=name, sent=0, bytes=0, shared=9, shared_with=('h1',), **values))
    assert 'h[2-3]: 9 files shared with h1 in' in summary.text()


class TestOneAfterTheOther:
    def test_one_waits_for_the_other(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        gate, waits = Gate(monkeypatch), is_waiting(two, monkeypatch)
        with ThreadPoolExecutor() as threads:
            one = threads.submit(two.bring, two.hosts[0])
            assert gate.arrived.wait(60)
            other = threads.submit(two.bring, two.hosts[1])
            assert waits.wait(60)
            assert not other.done()
            assert [path.name[:6] for path in two.site.there.iterdir()] == ['.rr-h1']  # the mark
            gate.opened.set()
            one.result(60)
            other.result(60)
        assert two.sent() == [('h1', 1, 0), ('h2', 0, 1)]
        assert two.site.names() == ['a']

    def test_one_fails(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        gate, waits = Gate(monkeypatch, TransferFailed('as if', host='h1')), is_waiting(two, monkeypatch)
        with ThreadPoolExecutor() as threads:
            one = threads.submit(two.bring, two.hosts[0])
            assert gate.arrived.wait(60)
            other = threads.submit(two.bring, two.hosts[1])
            assert waits.wait(60)
            gate.opened.set()
            other.result(60)
            with pytest.raises(TransferFailed, match='as if'):
                one.result(60)
        assert two.sent() == [('h2', 1, 0)]
        assert two.site.names() == ['a']

    def test_the_command_is_interrupted(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        gate, waits = Gate(monkeypatch), is_waiting(two, monkeypatch)
        with ThreadPoolExecutor() as threads:
            one = threads.submit(two.bring, two.hosts[0])
            assert gate.arrived.wait(60)
            other = threads.submit(two.bring, two.hosts[1])
            assert waits.wait(60)
            two.bringer.give_up()
            with pytest.raises(TransferFailed, match='interrupted'):
                other.result(60)
            gate.opened.set()
            one.result(60)
        assert two.sent() == [('h1', 1, 0)]
        assert two.site.names() == ['a']

    def test_one_agent_ends_and_takes_its_mark_with_it(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        gate, waits = Gate(monkeypatch), is_waiting(two, monkeypatch)
        with ThreadPoolExecutor() as threads:
            one = threads.submit(two.bring, two.hosts[0])
            assert gate.arrived.wait(60)
            other = threads.submit(two.bring, two.hosts[1])
            assert waits.wait(60)
            two.hosts[0].close()
            wait_until(lambda: two.site.names() == [], 'that the mark is gone')
            gate.opened.set()
            other.result(60)
            with pytest.raises(RemoteRunnerError):
                one.result(60)
        assert two.sent() == [('h2', 1, 0)]

    def test_what_one_has_seen_is_deleted_before_it_is_known_that_it_is_wanted(
        self, two: Two, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """h2 has looked, and all is there; h1, which has not heard of h2, deletes it; then h2 says what it wants."""
        for host in two.hosts:
            two.bring(host)
        two.begin(CopyOptions(delete=True))
        looked, deleted = threading.Event(), threading.Event()
        real = sharing.Turn.divide

        def divide(turn: sharing.Turn, *arguments: Any) -> Any:
            if turn.host is two.hosts[1]:
                looked.set()
                assert deleted.wait(60)
            return real(turn, *arguments)

        monkeypatch.setattr(sharing.Turn, 'divide', divide)
        (two.site.folder / 'empty').mkdir()
        with ThreadPoolExecutor() as threads:
            other = threads.submit(two.bring, two.hosts[1])
            assert looked.wait(60)
            placed = [Placed(str(two.site.folder / 'empty'), '/srv/shared', 'folder')]
            two.bringer.bring(two.hosts[0], two.bringer.manifest(placed, Mirror((Tree('/srv/shared'),))))
            assert two.site.names() == []
            deleted.set()
            other.result(60)
        assert two.site.names() == ['a']
        assert two.sent() == [('h1', 0, 0), ('h2', 1, 0)]

    def test_all_is_there_and_no_mark_is_made(self, two: Two) -> None:
        for host in two.hosts:
            two.bring(host)
        two.asked.clear()
        two.begin()
        for host in two.hosts:
            two.bring(host)
        assert two.sent() == [('h1', 0, 0), ('h2', 0, 0)]
        assert two.asked == {'compare': 2}

    def test_the_second_comes_when_the_first_is_done(self, two: Two) -> None:
        two.bring(two.hosts[0])
        two.site.file('b', 'other')
        placed = Placed(str(two.site.folder / 'b'), '/srv/of/all/a')
        with pytest.raises(TransferFailed, match=r'^h2: /srv/of/all/a and /srv/shared/a on h1 are the same'):
            two.bringer.bring(two.hosts[1], two.bringer.manifest([placed]))
        assert two.site.names() == ['a']


class TestVisible:
    """What one host wrote, another one sees late: on NFS. Here the other one looks and hears of the old state."""

    def blind(self, monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
        looks = [0]
        real = visible.look

        def look(host: Host, manifest: Any, local: Any) -> Any:
            looks[0] += 1
            found = real(host, manifest, local)
            if looks[0] > times:
                return found
            return found._replace(difference=found.difference._replace(send=manifest.files))

        monkeypatch.setattr(visible, 'look', look)
        return looks

    def both(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        gate, waits = Gate(monkeypatch), is_waiting(two, monkeypatch)
        with ThreadPoolExecutor() as threads:
            one = threads.submit(two.bring, two.hosts[0])
            assert gate.arrived.wait(60)
            other = threads.submit(two.bring, two.hosts[1])
            assert waits.wait(60)
            gate.opened.set()
            one.result(60)
            other.result(60)

    def test_late(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        looks = self.blind(monkeypatch, 4)
        self.both(two, monkeypatch)
        assert looks == [5]
        assert two.sent() == [('h1', 1, 0), ('h2', 0, 1)]

    def test_never(self, two: Two, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setattr(visible, 'VISIBLE_TIMEOUT', 0.2)
        looks = self.blind(monkeypatch, 10**9)
        with caplog.at_level(logging.WARNING):
            self.both(two, monkeypatch)
        assert looks[0] >= 2
        assert 'h2 does not see' in caplog.text
        assert '/srv/of/all/a' in caplog.text
        # It asked again before it sent anything, and all was right.
        assert two.sent() == [('h1', 1, 0), ('h2', 0, 0)]


class TestAlikeByAccident:
    def test_cloned_disks(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        """Inode numbers are equal, and nobody knows of which kernel the file systems are: marks tell."""
        for host in two.hosts:
            two.site.bed[host.name].path('/srv/own').mkdir(parents=True)
        monkeypatch.setitem(MOUNTS, 'h1', '/srv/own')
        monkeypatch.setitem(MOUNTS, 'h2', '/srv/own')
        alike = classmethod(lambda cls, top, found: cls(top, found[0], (5,), found[2], ''))
        monkeypatch.setattr(Place, 'of', alike)
        with ThreadPoolExecutor() as threads:
            for future in [threads.submit(two.bring, host) for host in two.hosts]:
                future.result(60)
        assert sorted(two.sent()) == [('h1', 1, 0), ('h2', 1, 0)]
        assert two.asked['leave_mark'] >= 1
        for host in two.hosts:
            assert [path.name for path in two.site.bed[host.name].path('/srv/own').iterdir()] == ['a']

    def test_folders_that_are_not_there_yet(self, two: Two) -> None:
        with ThreadPoolExecutor() as threads:
            for future in [threads.submit(two.bring, host, '/new/deep') for host in two.hosts]:
                future.result(60)
        assert sum(sent for _, sent, _ in two.sent()) == 1
        assert two.site.names() == ['new/deep/a']
