"""DS3: where the hosts of a cluster are written, and what becomes of changes."""

from __future__ import annotations

from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from remote_runner.cli.options import hosts_or_files
from remote_runner.errors import AddressError, RemoteRunnerError, UsageError
from remote_runner.hosts.address import Address
from remote_runner.placement.cluster import ClusterFile, Following, find
from tests.testbed.process import PATIENCE


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.delenv('XDG_CONFIG_HOME', raising=False)
    monkeypatch.delenv('RR_CLUSTER', raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(file: ClusterFile) -> list[str]:
    return [str(address) for address in file.read()]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class TestWhere:
    def test_the_option_then_the_environment_then_the_users_own(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = write(home / '.config/remote_runner/cluster', 'own\n')
        assert names(find()) == ['own']
        assert find().source == str(own)
        monkeypatch.setenv('XDG_CONFIG_HOME', str(home / 'xdg'))
        write(home / 'xdg/remote_runner/cluster', 'other\n')
        assert names(find()) == ['other']
        monkeypatch.setenv('RR_CLUSTER', 'env[1-2]')
        assert names(find()) == ['env1', 'env2']
        monkeypatch.setenv('RR_CLUSTER', str(write(home / 'mine', 'filed 2 0.5  # slow\n')))
        assert names(find()) == ['filed 2 0.5']
        assert names(find(['given', '@mine', 'mine'])) == ['given', 'filed 2 0.5']
        assert names(find(['node[1-3]'], exclude=['node2'])) == ['node1', 'node3']

    def test_a_list_that_is_too_long_for_a_path(self, home: Path) -> None:
        hosts = [f'node{number}' for number in range(2000)]
        assert names(find([','.join(hosts)])) == hosts
        assert hosts_or_files([','.join(hosts)]) == [','.join(hosts)]

    def test_nowhere(self, home: Path) -> None:
        with pytest.raises(UsageError) as raised:
            find()
        for place in ('-H', 'RR_CLUSTER', f'{home}/.config/remote_runner/cluster'):
            assert place in str(raised.value)

    def test_a_path_stays_the_same_in_another_folder(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(home / 'mine', 'filed')
        file = find(['mine'])
        monkeypatch.chdir('/')
        assert names(file) == ['filed']
        assert file.where == f'{home}/mine'
        assert find(['a', 'b[1-2]']).where == 'a b[1-2]'

    def test_what_cannot_be_read(self, home: Path) -> None:
        with pytest.raises(UsageError, match='no/such: no such file'):
            find(['no/such'])
        assert names(find(['4/node'])) == ['4/node']
        with pytest.raises(AddressError, match='gone cannot be read'):
            find(['@gone']).read()
        with pytest.raises(UsageError, match=r'^empty has no host'):
            find([str(write(home / 'empty', '# nothing\n').relative_to(home))]).read()


class TestChanges:
    def test_one_is_taken_when_it_is_whole(self, home: Path) -> None:
        file = find([str(write(home / 'mine', 'a\n'))])
        assert names(file) == ['a']
        assert file.reread() is None
        write(home / 'mine', 'a\nb\n')
        assert file.reread() is None, 'somebody may be writing it'
        assert file.reread() == [Address('a'), Address('b')]
        assert file.reread() is None
        write(home / 'new', 'c\nd\n').replace(home / 'mine')
        assert [file.reread(), file.reread()] == [None, [Address('c'), Address('d')]]

    @pytest.mark.parametrize('damage', ['c\nd:99999\n', '', 'a 0\n', '@other\n'])
    def test_a_wrong_one_is_told_once(self, home: Path, damage: str) -> None:
        file = find([str(write(home / 'mine', 'a\n'))])
        file.read()
        write(home / 'mine', damage)
        assert file.reread() is None
        with pytest.raises(RemoteRunnerError, match='mine'):
            file.reread()
        assert file.reread() is None
        write(home / 'mine', 'e\n')
        assert [file.reread(), file.reread()] == [None, [Address('e')]]

    def test_a_file_that_goes_and_comes(self, home: Path) -> None:
        file = find([str(write(home / 'mine', 'a\n'))])
        file.read()
        (home / 'mine').unlink()
        assert file.reread() is None
        with pytest.raises(AddressError, match='mine cannot be read: No such file'):
            file.reread()
        assert file.reread() is None
        write(home / 'mine', 'a\n')
        assert [file.reread(), file.reread()] == [None, [Address('a')]]

    def test_hosts_that_are_in_no_file_do_not_change(self, home: Path) -> None:
        file = find(['a,b'])
        assert names(file) == ['a', 'b']
        assert [file.reread(), file.reread()] == [None, None]

    def test_somebody_looks_again_and_again(self, home: Path) -> None:
        file = find([str(write(home / 'mine', 'a\n'))])
        file.read()
        taken: SimpleQueue[list[Address]] = SimpleQueue()
        told: SimpleQueue[RemoteRunnerError] = SimpleQueue()
        with Following(file, taken.put, told.put, interval=0.02):
            write(home / 'mine', 'b 2\n')
            assert taken.get(timeout=PATIENCE) == [Address('b', weights=(2.0,))]
            write(home / 'mine', 'b c@\n')
            assert 'mine, line 1' in str(told.get(timeout=PATIENCE))
            write(home / 'mine', 'c\n')
            assert taken.get(timeout=PATIENCE) == [Address('c')]
        with pytest.raises(Empty):
            told.get_nowait()
