"""How hosts are written: every form that is read, every one that is refused, and that both ways agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_runner.errors import AddressError
from remote_runner.hosts.address import Address, fold, parse_address, parse_hosts


@pytest.mark.parametrize(
    ('text', 'address'),
    [
        ('node1', Address('node1')),
        ('root@node1', Address('node1', user='root')),
        ('node1:2222', Address('node1', port=2222)),
        ('8/root@node1.example.org:22 2.0 1.5', Address('node1.example.org', 'root', 22, 8, (2.0, 1.5))),
        ('4/node1', Address('node1', slots=4)),
        ('node1 2', Address('node1', weights=(2.0,))),
        ('10.0.0.1', Address('10.0.0.1')),
        ('::1', Address('::1')),
        ('[::1]', Address('::1')),
        ('[::1]:22', Address('::1', port=22)),
        ('user@[fe80::1%eth0]', Address('fe80::1%eth0', user='user')),
        ('joe@EXAMPLE.ORG@node1', Address('node1', user='joe@EXAMPLE.ORG')),
        ('DOMAIN\\joe@node1', Address('node1', user='DOMAIN\\joe')),
        ('my_alias+x=1', Address('my_alias+x=1')),
        ('bücher', Address('bücher')),
        ('node[3]', Address('node3')),
    ],
)
def test_one_host(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ('text', 'names'),
    [
        ('node[1-3]', ['node1', 'node2', 'node3']),
        ('node[01-02,10]-rack[1-2]', [f'node{n}-rack{r}' for n in ('01', '02', '10') for r in (1, 2)]),
        ('n[08-11]', ['n08', 'n09', 'n10', 'n11']),
        ('n[0-30/10]', ['n0', 'n10', 'n20', 'n30']),
        ('a,b c  d,', ['a', 'b', 'c', 'd']),
        ('a 2.0 b 3', ['a', 'b']),
        ('[1-2].example.org', ['1.example.org', '2.example.org']),
        ('', []),
    ],
)
def test_lists(text: str, names: list[str]) -> None:
    assert [address.name for address in parse_hosts([text])] == names


def test_what_stands_around_a_folded_name_holds_for_each() -> None:
    assert parse_hosts(['2/joe@n[1-2]:99 1.5']) == [Address(f'n{i}', 'joe', 99, 2, (1.5,)) for i in (1, 2)]


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('-oProxyCommand=x', 'is an option'),
        ('joe@-x', 'is an option'),
        ('-x@node', 'user'),
        ('@', 'names no hosts file'),
        ('joe@', 'names no host'),
        (':22', 'names no host'),
        ('node:', 'port'),
        ('node:0', 'port'),
        ('node:65536', 'port'),
        ('node:ssh', 'port'),
        ('0/node', 'slots'),
        ('node[1-3', 'brackets'),
        ('node1-3]', 'brackets'),
        ('node[[1]]', 'brackets'),
        ('node[3-1]', 'empty'),
        ('node[1-3/0]', 'empty'),
        ('node[]', 'neither a number nor a range'),
        ('node[a-c]', 'neither a number nor a range'),
        ('node[1-999999999]', 'more than'),
        ('n[1-1000][1-1000]', 'more than'),
        ('[::zz]', 'IPv6'),
        ('1:2:3', 'IPv6'),
        ('no$de', 'cannot be part'),
        ('a;b', 'cannot be part'),
        ('a/b', 'cannot be part'),
        ('7', 'number'),
        ('node 0', 'above zero'),
        ('node 1 2 3', 'two weights'),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(AddressError, match=said) as caught:
        parse_hosts([text])
    assert caught.value.exit_status == 2


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(AddressError) as caught:
        parse_address('joe:s3cret@node1')
    assert 's3cret' not in str(caught.value)


def test_one_host_is_one() -> None:
    with pytest.raises(AddressError, match='means 3'):
        parse_address('node[1-3]')
    with pytest.raises(AddressError, match='empty'):
        parse_address('  ')


def test_duplicates_and_exclusions() -> None:
    hosts = parse_hosts(['n[1-3]', 'n2', 'joe@n2', 'n2:99'], exclude=['n1', 'joe@n[1-9]'])
    assert [str(host) for host in hosts] == ['n2', 'n3', 'n2:99']
    assert parse_hosts(['joe@n1:5', 'n1'], exclude=['n1']) == []


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / 'hosts'
    file.write_text('# my hosts\nn[1-2] 2.0  # old ones\n\n8/joe@big, gate\n')
    assert [str(host) for host in parse_hosts([f'@{file}', 'n1'], exclude=['gate'])] == ['n1 2', 'n2 2', '8/joe@big']
    file.write_text('good\nba$d\n')
    with pytest.raises(AddressError, match=r'hosts, line 2: .*cannot be part'):
        parse_hosts([f'@{file}'])
    file.write_text(f'@{file}\n')
    with pytest.raises(AddressError, match='line 1'):
        parse_hosts([f'@{file}'])
    with pytest.raises(AddressError, match='No such file'):
        parse_hosts([f'@{tmp_path}/none'])
    file.write_bytes(b'\xff\xfe')
    with pytest.raises(AddressError, match='UTF-8'):
        parse_hosts([f'@{file}'])


class TestFilesThatNameOthers:
    @staticmethod
    def write(folder: Path, **files: str) -> None:
        for name, text in files.items():
            path = folder / name.replace('__', '/')
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    def refused(self, folder: Path) -> str:
        with pytest.raises(AddressError) as caught:
            parse_hosts([f'@{folder}/all'])
        return str(caught.value).replace(f'{folder}/', '')

    def test_relative_to_the_file_that_names_them(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write(tmp_path, all='n1\n@ racks/one  # the new ones\nn2\n@same\n', racks__one='4/r[1-2] 2\n@two\n')
        self.write(tmp_path, racks__two=f'@../same\n@{tmp_path}/same\nr3\n', same='s # here and there\n')
        expected = ['n1', '4/r1 2', '4/r2 2', 's', 'r3', 'n2']
        assert [str(host) for host in parse_hosts([f'@{tmp_path}/all'])] == expected
        monkeypatch.chdir(tmp_path / 'racks')
        assert [str(host) for host in parse_hosts(['@../all'], exclude=['@two'])] == ['n1', '4/r1 2', '4/r2 2', 'n2']

    def test_round_in_a_circle(self, tmp_path: Path) -> None:
        self.write(tmp_path, all='n1\n@racks/one\n', racks__one='@two\n', racks__two='\n\n@../all\n')
        chain = 'all, which names racks/one, which names racks/two, which names racks/../all'
        assert f'racks/two, line 3: hosts files go round in a circle: {chain}' in self.refused(tmp_path)
        self.write(tmp_path, all='@all')
        assert 'all, line 1: hosts files go round in a circle: all, which names all' in self.refused(tmp_path)

    def test_errors_name_the_line_where_they_are(self, tmp_path: Path) -> None:
        self.write(tmp_path, all='n1\n@one', one='\nba$d')
        assert self.refused(tmp_path).startswith("one, line 2: 'ba$d' is no host")
        self.write(tmp_path, one='@none')
        assert self.refused(tmp_path) == 'one, line 1: the hosts file none cannot be read: No such file or directory'
        self.write(tmp_path, one='n\n@')
        assert self.refused(tmp_path) == "one, line 2: '@' names no hosts file"


@pytest.mark.parametrize(
    ('names', 'folded'),
    [
        ([f'node{i}' for i in range(1, 41)], 'node[1-40]'),
        (['gate', 'node1', 'node3', 'node2', 'node7'], 'gate,node[1-3,7]'),
        ([f'n{n:02}-r{r}' for n in range(8, 13) for r in (1, 2)], 'n[08-12]-r[1-2]'),
        (['10.0.0.1', '10.0.0.2'], '10.0.0.[1-2]'),
        (['joe@n1:22', 'joe@n2:22', 'n1:23'], 'joe@n[1-2]:22,n1:23'),
        (['::1', '::2'], '::1,::2'),
        (['n1', 'n1'], 'n1'),
        ([], ''),
    ],
)
def test_folding(names: list[str], folded: str) -> None:
    assert fold(names) == folded


_names = st.from_regex(r'[a-c]{1,2}[0-9]{0,3}(-[a-c][0-9]{1,2})?', fullmatch=True)


@given(st.lists(_names, max_size=30))
def test_folding_loses_nothing(names: list[str]) -> None:
    assert sorted(address.name for address in parse_hosts([fold(names)])) == sorted(set(names))


_ports = st.none() | st.integers(1, 65535)
_users = st.none() | st.from_regex(r'[a-z_][a-z0-9_.@-]{0,8}', fullmatch=True)
_weights = st.lists(st.floats(min_value=0, exclude_min=True, allow_infinity=False), max_size=2).map(tuple)
_hosts = (
    st.from_regex(r'[a-zA-Z_][a-zA-Z0-9_.+=~-]{0,12}', fullmatch=True)
    | st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(str)
)


@given(st.builds(Address, _hosts, _users, _ports, st.none() | st.integers(1, 999), _weights))
def test_what_is_shown_can_be_read_again(address: Address) -> None:
    assert parse_address(str(address)) == address


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_clearly(text: str) -> None:
    try:
        found = parse_hosts([text.lstrip('@')])
    except AddressError:
        return
    assert all(parse_address(str(address)) == address for address in found)


def test_addresses_cost_no_import_of_paramiko() -> None:
    code = 'import sys, remote_runner.hosts.address; sys.exit("paramiko" in sys.modules)'
    subprocess.run([sys.executable, '-c', code], check=True)
