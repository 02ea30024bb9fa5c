"""Completion in real shells at a real terminal: what they make of a line is what the command then gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_runner.cli.main import COMMANDS
from remote_runner.cli.shell.commands import commands
from tests.commands import COMMAND, ROOT, Commands, environment
from tests.tmux import Window, until

#: The command, which notes its arguments instead of running them. Completion itself is the real one.
_COMMAND = """\
#!/bin/sh
[ "$1" != completion ] || {{ echo "$*" >>{got}.asked; exec {python} -m remote_runner "$@"; }}
{python} -c 'import json, sys; json.dump(sys.argv[2:], open(sys.argv[1], "w"))' {got}.new "$@"
mv {got}.new {got}
"""
_START = {
    'bash': ('.bashrc', 'PS1="ready> "\nsource <(remote_runner completion bash)\n', 'exec bash --rcfile {file} -i'),
    'zsh': (
        '.zshrc',
        'PS1="ready> "\nautoload -Uz compinit\ncompinit -u -D\nsource <(remote_runner completion zsh)\n',
        'ZDOTDIR={folder} exec zsh -d -i',
    ),
    'fish': (
        'start.fish',
        'function fish_prompt; echo "ready> "; end\nset fish_greeting\nremote_runner completion fish | source\n',
        'exec fish -C "source {file}"',
    ),
}
_SSH_CONFIG = """\
Host alpha beta-*
Host = "quoted name" !not gamma # delta
  HostName 127.0.0.1
\tUserKnownHostsFile {folder}/known_hosts
include {folder}/more/*.conf
Match host x
"""
_KNOWN_HOSTS = """\
known-one,known-two ssh-ed25519 AAAA
# comment ssh-ed25519 AAAA
[odd-port]:2222 ssh-ed25519 AAAA
[fe80::1]:2200 ssh-ed25519 AAAA
*.pattern ssh-ed25519 AAAA
@revoked revoked ssh-ed25519 AAAA
|1|2BG7BvHEv7+iuJyhK1ZNG1cHVX0=|aCuxhCqMYEzUnjGQMT8VKgz3xW0= ssh-ed25519 AAAA
"""
HOSTS = ['[fe80::1]:2200', 'alpha', 'gamma', 'included', 'known-one', 'known-two', 'odd-port:2222']


class User:
    """Somebody with files, an ssh_config, a `remote_runner` that notes its arguments, and runs that were recorded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.got = folder / 'got'
        self.home = folder / 'home'
        self.write('bin/zz-probe', '#!/bin/sh\n', 0o755)
        self.write('bin/remote_runner', _COMMAND.format(python=sys.executable, got=self.got), 0o755)
        self.variables = {**environment(self.home), 'XDG_STATE_HOME': str(folder / 'state')}
        self.variables['PATH'] = f'{folder}/bin:{self.variables["PATH"]}'
        for name in ('config.py', 'config.txt', 'my muddler.py', "it's.py", 'a:b.py', 'hosts.txt', 'folder/inner.py'):
            self.write(name, '')
        self.write('ssh_config', _SSH_CONFIG.format(folder=folder))
        self.write('known_hosts', _KNOWN_HOSTS)
        self.write('more/one.conf', 'Host included\n')
        self.write('state/remote_runner/jobs/19990803-141200-00aa/journal.db', '')
        self.write('state/remote_runner/jobs/20260804-141200-00bb/journal.db', '')
        self.record('experiment', 'old', [('forgotten', 'h1')], 1)
        self.record('runner', 'new', [('worker', 'h1'), ('worker', 'h2'), ('single', 'h1')], 2)

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def record(self, session: str, run: str, components: list[tuple[str, str]], when: int) -> None:
        record = {'components': [{'name': name, 'host': host} for name, host in components]}
        path = self.write(f'state/remote_runner/runs/{session}/{run}/record.json', json.dumps(record))
        os.utime(path, (when, when))


class Shell:
    """An interactive shell of this user."""

    def __init__(self, name: str, user: User, *, write: bool = True) -> None:
        self.name = name
        self.user = user
        file, text, start = _START[name]
        path = user.write(file, text) if write else user.folder / file
        words = ' '.join(f"{variable}='{value}'" for variable, value in user.variables.items())
        start = start.format(file=path, folder=user.folder)
        self.window = Window(f"env -i {words} TERM=screen sh -c '{start}'", user.folder, rows=40)
        self.is_ready()

    def is_ready(self) -> None:
        """Wait for the prompt with nothing behind it: what is typed before goes through the terminal's own line."""
        self.window.shows(lambda lines: lines[-1] == 'ready>')

    def completes(self, line: str) -> list[str]:
        """The arguments that the command gets when Tab is pressed at the end of `line`."""
        self.user.got.unlink(missing_ok=True)
        self.window.type(f'{line}\t')
        self.window.type('\r')
        until(self.user.got.exists, lambda: '\n'.join(self.window.screen()))
        self.is_ready()
        return list(json.loads(self.user.got.read_text()))

    def lists(self, line: str, *expected: str) -> str:
        """The screen after Tab was pressed twice, as soon as it shows `expected`; the line is thrown away then."""
        self.window.type(f'\x0c{line}\t\t')
        lines = self.window.shows(lambda lines: all(text in ' '.join(lines) for text in expected))
        self.window.type('\x15')  # Ctrl-U; Ctrl-C would be a signal, which keys may overtake
        self.is_ready()
        return '\n'.join(lines)

    def asked(self) -> list[str]:
        """What words the shell has asked the command for."""
        path = Path(f'{self.user.got}.asked')
        return [line for line in path.read_text().splitlines() if '--words' in line]


@pytest.fixture(scope='module', params=_START)
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(request.param, User(tmp_path_factory.mktemp(request.param)))
    yield shell
    shell.window.close()


@pytest.mark.parametrize(
    ('line', 'arguments'),
    [
        # Commands and options.
        ('pla', ['plan']),
        ('--no-z', ['--no-zombie']),
        ('plan --extra', ['plan', '--extra-args']),
        ('exec --fo', ['exec', '--fold']),
        ('-t --skip', ['-t', '--skip-unreachable']),
        ('plan --screen exec --skip', ['plan', '--screen', 'exec', '--skip-unreachable']),
        ('--screen exec --no-k', ['--screen', 'exec', '--no-kill']),
        # Words that an option or operand may be.
        ('--on-failure le', ['--on-failure', 'leave']),
        ('--on-failure=le', ['--on-failure=leave']),
        ('exec -l W', ['exec', '-l', 'WARNING']),
        ('hosts tr', ['hosts', 'trust']),
        # Files.
        ('-c con', ['-c', 'config.py']),
        ('plan -c con', ['plan', '-c', 'config.py']),
        ('-c config.py --muddler=con', ['-c', 'config.py', '--muddler=config.py']),
        ('-m my', ['-m', 'my muddler.py']),
        ('--muddler=my', ['--muddler=my muddler.py']),
        ("-m 'my m", ['-m', 'my muddler.py']),
        ('-m "my m', ['-m', 'my muddler.py']),
        (r'-m my\ m', ['-m', 'my muddler.py']),
        ("-m it", ['-m', "it's.py"]),
        ('-a a:', ['-a', 'a:b.py']),
        ('-c fol', ['-c', 'folder/']),
        ('-c folder/i', ['-c', 'folder/inner.py']),
        ('--ssh-config=kno', ['--ssh-config=known_hosts']),
        ('-F config.t', ['-F', 'config.txt']),
        ('--remote-done-dir fol', ['--remote-done-dir', 'folder/']),
        ('--remote-done-dir=fol', ['--remote-done-dir=folder/']),
        # Hosts.
        ('exec -F ssh_config -H alp', ['exec', '-F', 'ssh_config', '-H', 'alpha']),
        ('exec -H x --ssh-config=ssh_config -x alp', ['exec', '-H', 'x', '--ssh-config=ssh_config', '-x', 'alpha']),
        ('exec -F ssh_config --hosts=alp', ['exec', '-F', 'ssh_config', '--hosts=alpha']),
        ('exec -F ssh_config -H root@alp', ['exec', '-F', 'ssh_config', '-H', 'root@alpha']),
        ('exec -F ssh_config -H "n[1-4],root@alp', ['exec', '-F', 'ssh_config', '-H', 'n[1-4],root@alpha']),
        ('exec -F ssh_config --hosts=x,root@od', ['exec', '-F', 'ssh_config', '--hosts=x,root@odd-port:2222']),
        ('exec -F ssh_config -H odd-port:2', ['exec', '-F', 'ssh_config', '-H', 'odd-port:2222']),
        ('exec -H @hos', ['exec', '-H', '@hosts.txt']),
        ('hosts trust x -F ssh_config inc', ['hosts', 'trust', 'x', '-F', 'ssh_config', 'included']),
        ('copy -F ssh_config inc', ['copy', '-F', 'ssh_config', 'included']),
        ('copy h1 config.t', ['copy', 'h1', 'config.txt']),
        ('copy h1 config.txt -C hosts.t', ['copy', 'h1', 'config.txt', '-C', 'hosts.txt']),
        ('copy h1 config.txt hosts.txt fol', ['copy', 'h1', 'config.txt', 'hosts.txt', 'folder/']),
        ('-F ssh_config --limit gam', ['-F', 'ssh_config', '--limit', 'gamma']),
        # Sessions and components.
        ('--screen ex', ['--screen', 'experiment']),
        ('--screen=ex', ['--screen=experiment']),
        ('jobs sho', ['jobs', 'show']),
        ('jobs show 19990803', ['jobs', 'show', '19990803-141200-00aa']),
        ('jobs clean x 20260804', ['jobs', 'clean', 'x', '20260804-141200-00bb']),
        ('--only sin', ['--only', 'single']),
        ('--only x,sin', ['--only', 'x,single']),
        ('--only worker@h1,worker@h2', ['--only', 'worker@h1,worker@h2']),
        ('--screen experiment --only for', ['--screen', 'experiment', '--only', 'forgotten']),
        # A command for the hosts.
        ('exec -H x -- zz-p', ['exec', '-H', 'x', '--', 'zz-probe']),
        ('exec -H x zz-p', ['exec', '-H', 'x', 'zz-probe']),
        ('exec -H x -- cat config.t', ['exec', '-H', 'x', '--', 'cat', 'config.txt']),
        ('exec -H x -- cat --fo', ['exec', '-H', 'x', '--', 'cat', '--fo']),
        # What nobody can know.
        ('--extra-args con', ['--extra-args', 'con']),
        ('-u con', ['-u', 'con']),
        ('--fanout=con', ['--fanout=con']),
    ],
)  # fmt: skip
def test_a_line_is_completed(shell: Shell, line: str, arguments: list[str]) -> None:
    got = shell.completes(f'remote_runner {line}')
    if shell.name == 'zsh' and arguments[-1].endswith('/'):
        got[-1] += '/'  # which zsh takes away when a line ends with it
    assert got == arguments


class TestLists:
    def test_commands_with_what_they_do(self, shell: Shell) -> None:
        titles = [title.split()[0] for _, title in COMMANDS.values()]
        shell.lists('remote_runner ', *COMMANDS, *titles)

    def test_options_with_what_they_do(self, shell: Shell) -> None:
        shown = shell.lists('remote_runner run --no-', '--no-kill', '--no-zombie', 'windows close when')
        assert '--always-copy' not in shown

    def test_words_of_an_option(self, shell: Shell) -> None:
        shown = shell.lists('remote_runner run --log-level ', 'DEBUG', 'INFO', 'WARNING', 'ERROR')
        assert 'config.py' not in shown

    def test_python_files_and_folders(self, shell: Shell) -> None:
        shown = shell.lists('remote_runner -c ', 'config.py', 'folder/', 'a:b.py')
        assert 'config.txt' not in shown

    def test_hosts(self, shell: Shell) -> None:
        shown = shell.lists('remote_runner exec -F ssh_config -H x,', *(host.split(':')[0] for host in HOSTS[1:]))
        assert all(word not in shown for word in ('beta', 'revoked', 'pattern', '|1|', 'config.py'))

    def test_sessions(self, shell: Shell) -> None:
        shell.lists('remote_runner run --screen ', 'experiment', 'runner')

    def test_jobs(self, shell: Shell) -> None:
        shell.lists('remote_runner jobs show ', '19990803-141200-00aa', '20260804-141200-00bb')

    def test_components(self, shell: Shell) -> None:
        shown = shell.lists('remote_runner run --only ', 'single', 'worker', 'worker@h1', 'worker@h2')
        assert 'forgotten' not in shown


def test_python_starts_for_hosts_and_components_alone(shell: Shell) -> None:
    before = shell.asked()
    for line in ('pla', '--no-z', '-c con', '--on-failure le', '--screen ex', 'hosts tr', 'exec -H x zz-p'):
        shell.completes(f'remote_runner {line}')
    assert shell.asked() == before
    shell.completes('remote_runner exec -F ssh_config -H alp')
    assert shell.asked() == [*before, 'completion --words hosts ssh_config']


def test_the_command_may_be_a_path(shell: Shell) -> None:
    assert shell.completes('bin/remote_runner exec -F ssh_config -H alp')[-1] == 'alpha'


@pytest.mark.parametrize('what', ['bash', 'zsh', 'fish', 'man'])
def test_as_json(what: str, tmp_path: Path) -> None:
    commands = Commands(tmp_path / 'home', tmp_path / 'none')
    plain = commands.run('completion', what).stdout
    assert commands.run('completion', what, '--json').objects == [{'shell': what, 'script': plain}]


def test_zsh_loads_it_from_a_folder_of_functions(tmp_path: Path) -> None:
    user = User(tmp_path)
    script = subprocess.run(
        [user.folder / 'bin/remote_runner', 'completion', 'zsh'], env=user.variables, capture_output=True, text=True
    )
    user.write('functions/_remote_runner', script.stdout)
    user.write('.zshrc', f'PS1="ready> "\nfpath+=({tmp_path}/functions)\nautoload -Uz compinit\ncompinit -u -D\n')
    shell = Shell('zsh', user, write=False)
    try:
        assert shell.completes('remote_runner -c con') == ['-c', 'config.py']  # the first key loads it
        assert shell.completes('remote_runner pla') == ['plan']
    finally:
        shell.window.close()


class TestBash:
    """The function itself, for what a terminal does not show."""

    @staticmethod
    def replies(user: User, line: str, words: list[str], *before: str) -> list[str]:
        """COMPREPLY for these words of the line, the last of which is completed."""
        quoted = ' '.join("'" + word.replace("'", "'\\''") + "'" for word in words)
        script = [
            *before,
            'source <(remote_runner completion bash)',
            f"COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=({quoted}) COMP_CWORD={len(words) - 1} COMP_TYPE=9",
            '_remote_runner remote_runner',
            'printf "%s\\n" "${COMPREPLY[@]}"',
        ]
        done = subprocess.run(
            ['bash', '-c', '\n'.join(script)], cwd=user.folder, env=user.variables, capture_output=True, text=True
        )
        assert done.stderr == ''
        return done.stdout.split('\n')[:-1]

    @pytest.fixture
    def user(self, tmp_path: Path) -> User:
        return User(tmp_path)

    def test_words_that_bash_splits(self, user: User) -> None:
        """What is replaced begins behind the last = or :, and at an @."""
        line = 'remote_runner plan --config=con'
        assert self.replies(user, line, ['remote_runner', 'plan', '--config', '=', 'con']) == ['config.py']
        line = 'remote_runner plan --log-level='
        words = ['remote_runner', 'plan', '--log-level', '=']
        assert self.replies(user, line, words) == ['DEBUG', 'INFO', 'WARNING', 'ERROR']
        line = 'remote_runner exec -F ssh_config -H root@odd-port:2'
        words = [*line.split()[:-1], 'root', '@', 'odd-port', ':', '2']
        assert self.replies(user, line, words) == ['2222']
        line = 'remote_runner exec -F ssh_config -H root@odd'
        assert self.replies(user, line, [*line.split()[:-1], 'root', '@odd']) == ['@odd-port:2222']

    def test_words_that_it_does_not_split(self, user: User) -> None:
        line = 'remote_runner plan --config=con'
        assert self.replies(user, line, line.split()) == ['--config=config.py']

    def test_with_options_of_strict_shells(self, user: User) -> None:
        strict = ('set -u', 'shopt -s failglob nullglob')
        for line in ('remote_runner ', 'remote_runner run ', 'remote_runner run --screen ', 'remote_runner --only '):
            words = [*line.split(), '']
            assert self.replies(user, line, words, *strict) == self.replies(user, line, words) != []

    def test_no_word_is_taken_for_code(self, user: User) -> None:
        line = 'remote_runner -c $(touch evil) `touch evil` a[$(touch evil)] --screen=$(touch evil) con'
        self.replies(user, line, line.split())
        assert not (user.folder / 'evil').exists()

    def test_every_option_is_offered(self, user: User) -> None:
        for command in commands():
            words = ['remote_runner', command.name, '-']
            expected = {name for option in command.options for name in option.names}
            assert set(self.replies(user, ' '.join(words), words)) == expected


class TestWords:
    @pytest.fixture
    def user(self, tmp_path: Path) -> User:
        return User(tmp_path)

    @staticmethod
    def ask(user: User, *words: str, status: int = 0) -> list[str]:
        done = Commands(user.home, user.folder / 'ssh_config').run(
            'completion', '--words', *words, status=status, variables=user.variables
        )
        assert (done.stderr == '') == (status == 0)
        return done.stdout.splitlines()

    def test_hosts(self, user: User) -> None:
        assert self.ask(user, 'hosts', str(user.folder / 'ssh_config')) == HOSTS

    def test_hosts_of_ones_own_files(self, user: User) -> None:
        """They are where ssh looks for them: in the home of the passwd entry."""
        user.write('own/.ssh/config', 'Include more\nHost first\n')
        user.write('own/.ssh/more', 'Host second\n')
        user.write('own/.ssh/known_hosts', _KNOWN_HOSTS)
        passwd = user.write('passwd', f'root:x:0:0:root:{user.folder}/own:/bin/sh\n')
        script = f'mount --bind {passwd} /etc/passwd && exec "$@"'
        command = ['unshare', '--mount', 'sh', '-c', script, 'sh', *COMMAND, 'completion', '--words', 'hosts']
        done = subprocess.run(command, capture_output=True, text=True, env=user.variables, check=True)
        assert {'first', 'second', 'known-one', 'odd-port:2222'} <= set(done.stdout.split())

    def test_of_an_ssh_config_that_is_not_there(self, user: User) -> None:
        assert self.ask(user, 'hosts', '/nothing', status=3) == []

    def test_components(self, user: User) -> None:
        assert self.ask(user, 'components') == ['single', 'worker', 'worker@h1', 'worker@h2']
        assert self.ask(user, 'components', 'experiment') == ['forgotten']
        assert self.ask(user, 'components', 'nothing') == []

    def test_without_records(self, user: User) -> None:
        user.variables['XDG_STATE_HOME'] = f'{user.folder}/nowhere'
        assert self.ask(user, 'components') == self.ask(user, 'sessions') == []
        user.variables['XDG_STATE_HOME'] = f'{user.folder}/other'
        user.write('other/remote_runner/runs/begun/run/events.jsonl', '')
        assert self.ask(user, 'components') == []
        assert self.ask(user, 'sessions') == ['begun']

    def test_of_no_kind(self, user: User) -> None:
        self.ask(user, 'colours', status=2)
        self.ask(user, status=2)

    def test_next_to_nothing_is_imported(self, user: User) -> None:
        code = (
            'import sys\nfrom remote_runner.cli.main import main\nmain(["completion", "--words", "hosts", "none"])\n'
            'print(*sys.modules)'
        )
        done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
        heavy = {'argparse', 'json', 'paramiko', 'rich', 'subprocess', 'socket', 'shutil', 'shlex', 'logging'}
        assert heavy & set(done.stdout.split()) == set()

    def test_help_imports_none_of_this(self) -> None:
        code = (
            'import atexit, sys\nfrom remote_runner.cli.main import main\n'
            'atexit.register(lambda: print("modules", *sys.modules))\nmain(["--help"])'
        )
        done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
        modules = done.stdout.rpartition('modules ')[2].split()
        assert 'remote_runner.cli.run' in modules
        assert [name for name in modules if 'shell' in name or 'completion' in name or 'misplaced' in name] == []
