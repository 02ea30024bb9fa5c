"""LB4, and the environment: what a program finds is what `ssh HOST env` shows, whatever the login shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploying import Deployment
from tests.openssh import ssh
from tests.testbed import TestHost

# Shells, and for each the file that it reads before any command.
SHELLS = {
    'sh': None,
    'dash': None,
    'bash': '.bashrc',
    'zsh': '.zshenv',
    'csh': '.cshrc',
    'tcsh': '.tcshrc',
    'fish': '.config/fish/config.fish',
    'ksh93': None,
    'mksh': None,
}
_CSH_LIKE = ('csh', 'tcsh')
# Shells keep these for themselves, and give their own to programs they start.
_OF_SHELLS = {'PWD', 'OLDPWD', 'SHLVL', '_'}
_OF_CONNECTIONS = {'SSH_CLIENT', 'SSH_CONNECTION'}


def _user(host: TestHost, shell: str, start_up: str = '') -> str:
    """A user with this login shell, and with these lines in the file that it reads first."""
    name = f'{Path(shell).name}-{len(host.path("/etc/passwd").read_text().splitlines())}'
    home = host.add_user(name, shell if '/' in shell else f'/usr/bin/{shell}')
    file = SHELLS.get(shell)
    if start_up:
        assert file
        path = host.path(f'{home}/{file}')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(start_up)
        host.run(['chown', '-R', f'{name}:', home])
    return name


def _environment(block: str) -> dict[str, str]:
    return dict(entry.split('=', 1) for entry in block.split('\0') if entry)


def _compare(deployment: Deployment, users: list[str]) -> None:
    """Deploy for each user on h1 a program that keeps its environment; compare that with what ssh shows."""
    for user in users:
        deployment.add('env', '/bin/cp', ['/proc/self/environ', f'/tmp/env-{user}'], f'{user}@h1')
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    for user in users:
        shown = ssh(deployment.bed, f'{user}@h1', r"printf '\001'; cat /proc/self/environ")
        assert shown.returncode == 0, shown.stderr
        expected = _environment(shown.stdout.rpartition('\x01')[2])
        got = _environment(deployment.written(f'/tmp/env-{user}'))
        ours = {name for name in got if name == 'TERM' or name.startswith('RR_')}
        assert 'TERM' in ours
        assert len(ours) > 1
        assert deployment.host().run(['infocmp', got['TERM']], check=False).returncode == 0
        assert {name for name in got if name not in _OF_SHELLS | ours} == {
            name for name in expected if name not in _OF_SHELLS | {'TERM'}
        }
        for name in expected.keys() - _OF_SHELLS - _OF_CONNECTIONS - {'TERM'}:
            assert got[name] == expected[name], name


def test_the_environment_is_what_ssh_shows_under_any_login_shell(deployment: Deployment) -> None:
    _compare(deployment, [_user(deployment.host(), shell) for shell in SHELLS])


def test_on_this_machine_the_environment_is_that_of_the_command(deployment: Deployment) -> None:
    kept = deployment.folder / 'env'
    deployment.add('env', '/bin/cp', ['/proc/self/environ', str(kept)], 'localhost')
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    got = _environment(kept.read_text())
    expected = deployment.environment
    ours = {name for name in got if name == 'TERM' or name.startswith('RR_')}
    assert {name: got[name] for name in got.keys() - ours - _OF_SHELLS} == {
        name: expected[name] for name in expected.keys() - {'TERM'}
    }


def test_what_start_up_files_set_is_there(deployment: Deployment) -> None:
    host = deployment.host()
    value = "a  'b' $c \t ä"
    users = []
    for shell, file in SHELLS.items():
        if file:
            quoted = value.replace("'", "'\\''")
            set_it = {'csh': 'setenv MINE ', 'tcsh': 'setenv MINE ', 'fish': 'set -x MINE '}.get(shell, 'export MINE=')
            users.append(_user(host, shell, f"{set_it}'{quoted}'\n"))
    _compare(deployment, users)
    for user in users:
        assert f'\0MINE={value}\0' in '\0' + deployment.text(f'/tmp/env-{user}')


def test_start_up_files_that_print_much_or_trace_everything(deployment: Deployment) -> None:
    host = deployment.host()
    much = "head -c 300000 /dev/zero | tr '\\000' x; echo; echo fatal error >&2\n"
    trace = {'csh': 'set echo verbose\n', 'tcsh': 'set echo verbose\n', 'fish': 'set fish_trace 1\n'}
    users = [
        _user(host, shell, trace.get(shell, 'set -x\n') + much + 'stty sane\numask 022\n')
        for shell, file in SHELLS.items()
        if file
    ]
    _compare(deployment, users)


def test_start_up_files_that_read_a_line(deployment: Deployment) -> None:
    """They get an empty line: nobody is there to type one."""
    host = deployment.host()
    read = {'csh': 'set x = "$<"\n', 'tcsh': 'set x = "$<"\n', 'fish': 'read x\n'}
    users = [_user(host, shell, read.get(shell, 'read x\n')) for shell, file in SHELLS.items() if file]
    for user in users:
        deployment.sleep(host=f'{user}@h1')
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert len(ended.of('component_started')) == len(users)


@pytest.mark.parametrize('shell', ['/usr/sbin/nologin', '/bin/false', '/usr/bin/rbash', '/no/such/shell'])
def test_a_login_shell_that_lets_nobody_in_is_an_error_of_that_host(deployment: Deployment, shell: str) -> None:
    user = _user(deployment.host(), shell)
    deployment.sleep(host=f'{user}@h1')
    deployment.sleep(host='h2')
    ended = deployment.run()
    assert ended.status == 3
    assert f'{user}@h1' in ended.stderr
    if shell.endswith('nologin'):
        assert 'This account is currently not available' in ended.stderr
    assert 'Traceback' not in ended.stderr
    assert deployment.sleepers(host='h2') == []


_NEVER_ENDING = {'zsh': 'exec zsh', 'cat': 'exec cat', 'bed': 'sleep 1000'}


def test_start_up_files_that_never_come_to_an_end_are_errors_that_quote_what_was_printed(
    deployment: Deployment,
) -> None:
    start_ups = [f'echo welcome to {word}; {then}\n' for word, then in _NEVER_ENDING.items()]
    users = [_user(deployment.host(), 'bash', start_up) for start_up in start_ups]
    for user in users:
        deployment.sleep(host=f'{user}@h1')
    ended = deployment.run('--connect-timeout', '2')
    assert ended.status == 3
    for user, word in zip(users, _NEVER_ENDING, strict=True):
        assert f'welcome to {word}' in ended.the('host_failed', host=f'{user}@h1')['error']
        assert f'{user}@h1' in ended.stderr
        assert f'welcome to {word}' in ended.stderr
    assert 'Traceback' not in ended.stderr


def test_a_start_up_file_that_goes_over_to_another_shell_with_the_command(deployment: Deployment) -> None:
    user = _user(deployment.host(), 'bash', 'exec zsh -c "$BASH_EXECUTION_STRING"\n')
    deployment.sleep(host=f'{user}@h1')
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
