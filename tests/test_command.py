"""RR8, RR9, RR14, RR15: the command line, what it tells users and their files, and what it never tells anybody."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from remote_runner.cli import completion as cli_completion
from remote_runner.cli import exec as cli_exec
from remote_runner.cli import hosts as cli_hosts
from remote_runner.cli import run as cli_run
from remote_runner.cli.main import COMMANDS
from tests.commands import ROOT, Commands, Done, Site, component, eventually_exists, ssh_config
from tests.ssh_tools import server
from tests.testbed import Testbed
from tests.testbed.process import wait_until

LEVELS = ['DEBUG', 'INFO', 'WARNING', 'ERROR']
PRODUCT = str(ROOT / 'remote_runner')
#: Known to this process alone, for others may look for theirs at the same time.
SECRET = f'hunter2-{uuid.uuid4().hex}'


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    """Of somebody whose ssh_config names `dead`, which refuses connections."""
    config = tmp_path / 'ssh_config'
    config.write_text('Host dead\n  HostName 127.0.0.1\n  Port 9\n')
    return Commands(tmp_path / 'home', config)


@pytest.fixture
def site(bed: Testbed, tmp_path: Path) -> Iterator[Site]:
    with Site(bed, tmp_path) as site:
        yield site


FULL = {
    'run': ['run', '--json'],
    'plan': ['plan', '--json'],
    'exec': ['exec', '--json', '-H', 'localhost', 'true'],
    'copy': ['copy', '--json', 'localhost', 'config.py', 'copied'],
    'copy -n': ['copy', '-n', '--json', 'localhost', 'config.py', 'copied'],
    'copy, for people': ['copy', 'localhost', 'config.py', 'copied'],
    'doctor': ['doctor', '--json', 'localhost'],
    'ps': ['ps', '--json', 'localhost'],
    'clean': ['clean', '--json', '--dry-run', 'localhost'],
    'help': ['help', '--json'],
    'version': ['version', '--json'],
    'completion': ['completion', '--json', 'bash'],
}


@pytest.mark.parametrize('what', FULL)
def test_what_cannot_be_written_is_told_and_is_no_success(commands: Commands, tmp_path: Path, what: str) -> None:
    words = FULL[what]
    (tmp_path / 'config.py').write_text(component('x', 'localhost', '/bin/true', wait=True))
    if what in ('run', 'plan'):
        words = [*words, '-c', 'config.py', '--screen', f's{uuid.uuid4().hex[:8]}']
    with Path('/dev/full').open('w') as full:
        done = commands.run(*words, stdout=full, cwd=tmp_path, status=None)
    assert 'No space left on device' in done.stderr
    assert done.status == 1, done


def write(folder: Path, **files: str) -> None:
    """Python files by their names, and `config` that adds a component on the host `dead`, if it is not among them."""
    for name, text in {'config': component('x', 'dead'), **files}.items():
        (folder / f'{name}.py').write_text(text)


def run(commands: Commands, folder: Path, *arguments: str, status: int | None = 3) -> Done:
    """Deploy the config of this folder, from there; all is well until `dead` refuses."""
    return commands.run('-F', commands.ssh_config, '-c', 'config.py', *arguments, status=status, cwd=folder)


class TestHelp:
    def test_of_every_option(self, commands: Commands) -> None:
        for words, parser in (
            ([], cli_run.make_parser()),
            (['exec'], cli_exec.make_parser()),
            (['hosts'], cli_hosts.make_parser()),
            (['completion'], cli_completion.make_parser()),
        ):
            text = commands.run(*words, '--help').stdout
            for action in parser._actions:
                assert action.help
                assert action.help is not argparse.SUPPRESS
                for option in action.option_strings:
                    assert re.search(rf'^  .*(?<![\w-]){option}(?![\w-])', text, re.MULTILINE), option

    def test_of_what_users_know(self, commands: Commands) -> None:
        text = commands.run('--help').stdout
        options = """-c --config -m --muddler -a --arg-parser --extra-args --screen --no-kill --no-zombie --always-copy
            -u --user -p --pass -t --terminate -l --log-level --remote-done-dir --json --only --limit --fanout
            --connect-timeout --start-timeout --skip-unreachable --accept-new-host-keys -F --version -h --help"""
        for option in options.split():
            assert re.search(rf'(?<![\w-]){option}(?![\w-])', text), option
        for option in ('--fanout', '--connect-timeout', '--start-timeout', '--screen', '--log-level'):
            explained = re.search(rf'{option} .*(?:\n   +.*)*', text)
            assert explained
            assert 'default' in explained[0], option
        assert 'RR_PASS_FILE' in text
        for name in COMMANDS:
            assert re.search(rf'^ +{name}\b', text, re.MULTILINE)
        for status in ('0', '1', '2', '3', '130'):
            assert re.search(rf'\b{status} ', text)

    def test_of_a_plan_shows_what_makes_a_difference(self, commands: Commands) -> None:
        text = commands.run('plan', '--help').stdout
        for option in ('--diff', '--only', '--screen', '--no-kill', '--keep-running', '--always-copy', '--json', '-u'):
            assert re.search(rf'(?<![\w-]){option}(?![\w-])', text), option
        hidden = ['--no-zombie', '--terminate', '--start-timeout', '--on-failure', '--results']
        assert [option for option in [*hidden, '--no-fetch', '--remote-done-dir'] if option in text] == []
        assert 'event' not in text

    def test_a_plan_takes_all_options_of_a_run(self, commands: Commands, tmp_path: Path) -> None:
        write(tmp_path, config=component('x', 'dead', args=['1']) + 'assert options.terminate and options.no_zombie\n')
        options = shlex.split('-t --no-zombie --start-timeout 9 --on-failure stop --skip-unreachable --no-fetch')
        assert 'x@dead' in commands.run('plan', '-c', 'config.py', *options, cwd=tmp_path).stdout

    def test_nothing_given(self, commands: Commands) -> None:
        done = commands.run(status=2)
        assert re.match(r'ERROR: .*--config.*--help', done.stderr)
        assert done.stdout == ''

    @pytest.mark.parametrize('name', COMMANDS)
    def test_every_command_speaks_json(self, commands: Commands, name: str) -> None:
        assert re.search(r'^ +--json ', commands.run(name, '--help').stdout, re.MULTILINE)

    def test_as_a_command(self, commands: Commands) -> None:
        for name in COMMANDS:
            assert commands.run('help', name).stdout == commands.run(name, '--help').stdout
        assert commands.run('help').stdout == commands.run('--help').stdout
        assert re.match('ERROR: .*plann', commands.run('help', 'plann', status=2).stderr)

    def test_as_json(self, commands: Commands) -> None:
        shown = {command['name']: command for command in json.loads(commands.run('help', '--json').stdout)}
        assert list(shown) == list(COMMANDS)
        [options] = [group['options'] for group in shown['plan']['groups'] if group['title'] == '']
        assert '--diff' in [name for option in options for name in option['names']]
        assert json.loads(commands.run('help', 'plan', '--json').stdout) == [shown['plan']]

    def test_version_as_a_command(self, commands: Commands) -> None:
        shown = commands.run('--version').stdout
        assert commands.run('version').stdout == shown
        version = json.loads(commands.run('version', '--json').stdout)['version']
        assert f'remote_runner {version}\n' == shown
        assert 'extra' in commands.run('version', 'extra', status=2).stderr

    def test_version(self, commands: Commands) -> None:
        version = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']
        assert commands.run('--version').stdout == f'remote_runner {version}\n'


@pytest.mark.parametrize('option', ['--conf', '--mudd', '--extra', '--always', '--user-count', '--screen-name', '--no'])
def test_options_count_by_their_whole_names(commands: Commands, tmp_path: Path, option: str) -> None:
    write(tmp_path)
    done = run(commands, tmp_path, f'{option}=3', status=2)
    assert re.match(rf'ERROR: .*{option}', done.stderr)


@pytest.mark.parametrize('user', [['-u', ''], ['--user='], ['--user= '], ['--user=-oProxyCommand=x']])
def test_a_user_has_a_name(commands: Commands, tmp_path: Path, user: list[str]) -> None:
    write(tmp_path)
    for command in (['-c', 'config.py'], ['plan', '-c', 'config.py'], ['status'], ['hosts', 'trust', 'dead']):
        done = commands.run(*command, *user, status=2, cwd=tmp_path)
        assert re.match(r'ERROR: argument -u/--user: .* is no name of a user', done.stderr)


class TestOptionsBeforeTheCommand:
    """One message that shows the right order, whatever else would be wrong with a run."""

    @pytest.mark.parametrize(
        ('words', 'right'),
        [
            ('-F X plan -c c.py', 'plan -F X -c c.py'),
            ('--json plan', 'plan --json'),
            ('-H h exec -- uptime -x', 'exec -H h -- uptime -x'),
            ('-FX --fanout=3 exec -H plan -- hosts', 'exec -FX --fanout=3 -H plan -- hosts'),
            ('--extra-args "-x y" run -c plan', "run --extra-args '-x y' -c plan"),
            ('-l DEBUG hosts trust exec', 'hosts -l DEBUG trust exec'),
            ('--version plan', 'plan --version'),
        ],
    )
    def test_is_refused(self, commands: Commands, words: str, right: str) -> None:
        done = commands.run(*shlex.split(words), status=2)
        assert done.stderr.splitlines()[0] == (
            f'ERROR: options of a command follow its name (write: remote_runner {right})'
        )
        assert done.stdout == ''

    @pytest.mark.parametrize('password', [['-p', SECRET], [f'-p{SECRET}'], ['--pass', SECRET], [f'--pass={SECRET}']])
    def test_passwords_are_not_shown(self, commands: Commands, password: list[str]) -> None:
        for words in ([*password, 'plan', '-c', 'c.py'], ['-F', 'X', 'plan', *password]):
            done = commands.run(*words, status=2)
            assert 'follow its name' in done.stderr
            assert '***' in done.stderr
            assert SECRET not in done.stderr

    def test_values_may_be_called_as_commands_are(self, commands: Commands, tmp_path: Path) -> None:
        (tmp_path / 'plan').write_text(component('exec', 'dead'))
        words = ['--screen', 'exec', '-F', commands.ssh_config, '--only=exec', '-c', 'plan', '--limit', 'dead']
        done = commands.run(*words, status=3, cwd=tmp_path)
        assert 'refused' in done.stderr

    def test_a_word_that_is_no_command(self, commands: Commands) -> None:
        assert 'plann' in commands.run('-c', 'c.py', 'plann', status=2).stderr
        assert 'follow' not in commands.run('run', '-c', 'c.py', 'plan', status=2).stderr


class TestExitStatus:
    """0 and 1 are where something runs; here what comes before that, and 130."""

    def test_of_this_machine_alone(self, site: Site) -> None:
        site.write(component('good', 'localhost'), component('bad', 'localhost', '/bin/sh', ['-c', 'exit 5']))
        assert re.search(r'^ERROR: bad@localhost: .*\b5\b', site.deploy(status=1).stderr, re.MULTILINE)
        site.deploy('--only', 'good', status=0)

    def test_a_host_that_cannot_be_reached(self, commands: Commands, tmp_path: Path) -> None:
        write(tmp_path)
        done = run(commands, tmp_path, status=3)
        assert re.search(r'^ERROR: dead: .*refused', done.stderr, re.MULTILINE)

    @pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_interrupted_while_connecting(self, commands: Commands, tmp_path: Path, number: signal.Signals) -> None:
        connected, end = Event(), Event()

        def hold(_: object) -> None:
            connected.set()
            end.wait()

        with server(hold) as port:
            try:
                write(tmp_path, config=component('x', f'127.0.0.1:{port}'))
                arguments = ['-F', str(commands.ssh_config), '-c', str(tmp_path / 'config.py')]
                with commands.start(*arguments, '--connect-timeout', '1000') as command:
                    wait_until(connected.is_set, 'the connection')
                    command.signal(number)
                    done = command.end()
            finally:
                end.set()
        assert done.status == 130
        assert 'Traceback' not in done.stderr

    def test_what_a_config_leaves_behind_is_done_before_the_end(self, commands: Commands, tmp_path: Path) -> None:
        lines = [
            'import atexit, pathlib, threading',
            "options.keeps = open('buffered', 'w')",
            "options.keeps.write('whole')",
            "atexit.register(pathlib.Path('at-exit').write_text, 'whole')",
            "threading.Timer(0.3, pathlib.Path('thread').write_text, ['whole']).start()",
            'from concurrent.futures import ThreadPoolExecutor',
            'options.pool = ThreadPoolExecutor(); options.pool.submit(print, "in a pool")',
            component('x', 'dead'),
        ]
        write(tmp_path, config='\n'.join(lines))
        commands.run('plan', '-c', 'config.py', cwd=tmp_path)
        for name in ('buffered', 'at-exit', 'thread'):
            assert (tmp_path / name).read_text() == 'whole'

    def test_interrupted_before_it_has_begun(self) -> None:
        lines = [
            'import builtins, os, signal, sys',
            'real = builtins.__import__',
            'def interrupting(name, *rest):',
            "    if name == 'remote_runner.cli.main': os.kill(os.getpid(), signal.SIGINT)",
            '    return real(name, *rest)',
            'from remote_runner.cli.entry import entry_point',
            'builtins.__import__ = interrupting',
            'entry_point()',
        ]
        done = subprocess.run([sys.executable, '-c', '\n'.join(lines)], cwd=ROOT, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (130, b'\nERROR: interrupted\n')

    def test_interrupted_in_the_config(self, commands: Commands, tmp_path: Path) -> None:
        write(tmp_path, config="open('there', 'w').write('x')\nimport time\ntime.sleep(1000)\n")
        with commands.start('-c', tmp_path / 'config.py') as command:
            eventually_exists(tmp_path / 'there')
            command.signal(signal.SIGINT)
            done = command.end()
        assert done.status == 130
        assert 'Traceback' not in done.stderr


class TestErrors:
    DEBUG = (['-l', 'DEBUG'], ['--log-level=DEBUG'], ['-lDEBUG'], ['-l', 'debug'])

    def both(self, commands: Commands, folder: Path, *arguments: str, status: int) -> str:
        """What is said, without our stack; and with it at -l DEBUG, after the same words and with the same status."""
        for level in ([], ['-l', 'INFO']):
            done = run(commands, folder, *arguments, *level, status=status)
            assert 'Traceback' not in done.stderr
            assert PRODUCT not in done.stderr
        [line] = [line for line in done.stderr.splitlines() if line.startswith('ERROR: ')][:1]
        for level in self.DEBUG:
            debug = run(commands, folder, *arguments, *level, status=status)
            assert 'Traceback' in debug.stderr
            assert PRODUCT in debug.stderr
            assert line.removeprefix('ERROR: ') in debug.stderr
        return done.stderr

    def test_in_a_config(self, commands: Commands, tmp_path: Path) -> None:
        write(tmp_path, config='# first\ndef f():\n    return 1 / 0\n\nf()\n')
        said = self.both(commands, tmp_path, status=2)
        assert f'{tmp_path}/config.py' in said
        assert re.search(r'line 3\b', said)
        assert 'division by zero' in said

    def test_in_a_muddler(self, commands: Commands, tmp_path: Path) -> None:
        write(tmp_path, muddler='def muddle(config):\n    assert not list(config.all_components()), "too many"\n')
        said = run(commands, tmp_path, '-m', 'muddler.py', status=2).stderr
        assert re.search(rf'{tmp_path}/muddler\.py.*line 2\b', said)
        assert 'too many' in said
        assert PRODUCT not in said

    def test_in_an_arg_parser(self, commands: Commands, tmp_path: Path) -> None:
        write(tmp_path, parser='import sys\n\ndef parse_args(extra_args):\n    sys.exit(7)\n')
        said = run(commands, tmp_path, '-a', 'parser.py', '--extra-args', 'x', status=2).stderr
        assert re.search(rf'{tmp_path}/parser\.py.*line 4\b', said)
        assert PRODUCT not in said

    def test_of_python_2(self, commands: Commands, tmp_path: Path) -> None:
        write(tmp_path, config="import os\nfor i in xrange(3):\n    print 'host', i\n")
        said = run(commands, tmp_path, status=2).stderr
        assert len([line for line in said.splitlines() if line.startswith('ERROR: ')]) == 1
        assert re.search(r'line 3\b', said)
        assert 'Python 2' in said
        assert 'print(' in said or '2to3' in said

    def test_of_a_config_and_all_that_goes_with_it_in_one_report(self, commands: Commands, tmp_path: Path) -> None:
        lines = [
            'c = Component()',
            "c.hsot = 'node1'",
            'config.add_component(c)',
            "for c.name in 'ab':",
            "    c.host, c.executable, c.files = 'localhost', '/bin/true', {'nowhere': 'x'}",
            '    config.add_component(c)',
            "c.host, c.fils = 'node1', {}",
            "c.host, c.files = 'node1', {'nowhere': 'x'}",
            'config.add_component(c)',
            'config.add_component(c)',
        ]
        write(tmp_path, config='\n'.join(lines), muddler='')
        said = run(commands, tmp_path, '-m', 'muddler.py', '--extra-args', 'x', status=2).stderr
        assert re.sub(r'\n    \|.*', '', said.replace(f'{tmp_path}/', '')).splitlines() == [
            'ERROR: the config has 10 faults; no host was touched:',
            '  - --extra-args needs --arg-parser (name the file whose parse_args() reads them)',
            "  - config.py, line 2: AttributeError: a Component has no attribute 'hsot'; the nearest is 'host'",
            "  - config.py, line 7: AttributeError: a Component has no attribute 'fils'; the nearest is 'files'",
            '  - muddler muddler.py: does not define muddle (define muddle(config) or muddle(config, options))',
            '  - (no name)@(no host): name is not set',
            '  - (no name)@(no host): host is not set',
            '  - (no name)@(no host): executable is not set',
            '  - a@localhost, b@localhost: files must be empty on localhost: nothing is copied there',
            '  - b@node1: files: nowhere does not exist',
            '  - b@node1: 2 components of the same name on the same host',
        ]

    def test_of_hosts(self, commands: Commands, tmp_path: Path) -> None:
        write(tmp_path)
        assert 'dead' in self.both(commands, tmp_path, status=3)

    def test_of_usage(self, commands: Commands, tmp_path: Path) -> None:
        write(tmp_path)
        assert '--fanout' in self.both(commands, tmp_path, '--fanout', 'many', status=2)


# Shows what came to it, and what the config and a muddler are given.
PARSER = """\
import argparse
def parse_args(extra_args, ssh_user):
    parser = argparse.ArgumentParser(prog='theirs', description='What they understand.')
    parser.add_argument('-c', nargs='?', const='nothing')
    parser.add_argument('--user-count', type=int)
    parser.add_argument('--always', action='store_true')
    parser.add_argument('rest', nargs='*')
    result = parser.parse_args(extra_args)
    result.user = ssh_user
    return result
"""
SHOW = "import json\njson.dump(vars(extra_options) if extra_options else None, open('seen', 'w'))\n"


class TestExtraArgs:
    @pytest.fixture
    def seen(self, commands: Commands, tmp_path: Path) -> Path:
        write(tmp_path, parser=PARSER, config=SHOW + component('x', 'dead'))
        return tmp_path / 'seen'

    @pytest.mark.parametrize(
        ('words', 'expected'),
        [
            (['--extra-args', '--user-count 3 -c x'], {'user_count': 3, 'c': 'x'}),
            (['--extra-args', '--user-count 3'], {'user_count': 3}),
            (['--extra-args=-c'], {'c': 'nothing'}),
            (['--extra-args', '-c'], {'c': 'nothing'}),
            (['--extra-args=--always'], {'always': True}),
            (['--extra-args', '--always'], {'always': True}),
            (['--extra-args', '"a b" \'c  d\' -- -m -c'], {'rest': ['a b', 'c  d', '-m', '-c']}),
            (['--extra-args', ''], {}),
            ([], {}),
        ],
        ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
    )
    def test_arrive_whole(
        self, commands: Commands, seen: Path, words: list[str], expected: dict[str, object]
    ) -> None:
        run(commands, seen.parent, '-u', 'somebody', '-a', 'parser.py', *words)
        nothing: dict[str, object] = {'c': None, 'user_count': None, 'always': False, 'rest': [], 'user': 'somebody'}
        assert json.loads(seen.read_text()) == {**nothing, **expected}
        run(commands, seen.parent)
        assert json.loads(seen.read_text()) is None

    def test_the_help_of_the_users_parser(self, commands: Commands, seen: Path) -> None:
        for words in (['--extra-args', '--help'], ['--extra-args=--help'], ['--extra-args', '-h --always']):
            done = run(commands, seen.parent, '-a', 'parser.py', *words, status=0)
            assert 'What they understand.' in done.stdout
            assert '--user-count' in done.stdout
            assert '--skip-unreachable' not in done.stdout
            assert done.stderr == ''
        assert not seen.exists()

    def test_what_the_users_parser_refuses(self, commands: Commands, seen: Path) -> None:
        done = run(commands, seen.parent, '-a', 'parser.py', '--extra-args', '--user-count many', status=2)
        assert '--user-count' in done.stderr
        assert 'many' in done.stderr
        assert 'Traceback' not in done.stderr

    def test_without_a_parser(self, commands: Commands, seen: Path) -> None:
        done = run(commands, seen.parent, '--extra-args', '-c', status=2)
        assert '--arg-parser' in done.stderr

    def test_nothing_after_it(self, commands: Commands, seen: Path) -> None:
        done = run(commands, seen.parent, '-a', 'parser.py', '--extra-args', status=2)
        assert '--extra-args' in done.stderr


class TestUsersFiles:
    def test_options(self, commands: Commands, tmp_path: Path) -> None:
        names = [
            'config_file', 'ssh_user', 'ssh_pass', 'log_level', 'screen', 'kill_first', 'terminate', 'always_copy',
            'no_zombie', 'muddler', 'muddlers', 'extra_args', 'arg_parser', 'remote_done_dir',
        ]  # fmt: skip
        show = f"import json\njson.dump({{name: getattr(options, name) for name in {names!r}}}, open('FILE', 'w'))\n"
        config = show.replace('FILE', 'of-config') + component('x', 'dead')
        muddler = show.replace('FILE', 'of-muddler') + 'def muddle(config, options):\n    assert options.screen\n'
        write(tmp_path, config=config, first='def muddle(config):\n    pass\n', second=muddler, parser=PARSER)
        run(commands, tmp_path)
        assert json.loads((tmp_path / 'of-config').read_text()) == {
            'config_file': f'{tmp_path}/config.py', 'ssh_user': None, 'ssh_pass': None, 'log_level': 'INFO',
            'screen': 'runner', 'kill_first': True, 'terminate': False, 'always_copy': False, 'no_zombie': False,
            'muddler': None, 'muddlers': [], 'extra_args': None, 'arg_parser': None, 'remote_done_dir': None,
        }  # fmt: skip
        words = '-u me -p secret -l ERROR --screen mine --no-kill -t --always-copy --no-zombie -m first.py -m second.py'
        more = ['-a', 'parser.py', '--extra-args', 'a b', '--remote-done-dir', '/done']
        run(commands, tmp_path, *words.split(), *more)
        expected = {
            'config_file': f'{tmp_path}/config.py', 'ssh_user': 'me', 'ssh_pass': 'secret', 'log_level': 'ERROR',
            'screen': 'mine', 'kill_first': False, 'terminate': True, 'always_copy': True, 'no_zombie': True,
            'muddler': f'{tmp_path}/second.py', 'muddlers': [f'{tmp_path}/first.py', f'{tmp_path}/second.py'],
            'extra_args': 'a b', 'arg_parser': f'{tmp_path}/parser.py', 'remote_done_dir': '/done',
        }  # fmt: skip
        assert json.loads((tmp_path / 'of-config').read_text()) == expected
        assert json.loads((tmp_path / 'of-muddler').read_text()) == expected

    def test_muddlers_one_after_another(self, commands: Commands, tmp_path: Path) -> None:
        text = 'def muddle(config{}):\n    for component in config.all_components():\n        component.name += {!r}\n'
        write(tmp_path, a=text.format('', '-a'), b=text.format(', options', '-b'))
        done = run(commands, tmp_path, '--json', '-m', 'a.py', '-m', 'b.py', '-m', 'a.py')
        assert done.event('run_started')['components'] == {'0': ['x-a-b-a@dead']}

    def test_what_they_print_does_not_disturb_who_reads_events(self, commands: Commands, tmp_path: Path) -> None:
        write(
            tmp_path,
            config="print('printed by the config')\n" + component('x', 'dead'),
            muddler="def muddle(config):\n    print('printed by the muddler')\n",
        )
        done = run(commands, tmp_path, '--json', '-m', 'muddler.py')
        assert done.objects[0]['event'] == 'run_started'
        assert 'printed by the config\nprinted by the muddler\n' in done.stderr

    def test_where_they_run(self, commands: Commands, tmp_path: Path) -> None:
        """A config in its own folder, muddlers and arg parsers in that of the caller."""
        show = "import os\nopen({!r}, 'a').write(f'{{__file__}} {{os.getcwd()}}\\n')\n"
        out = tmp_path / 'out'
        (tmp_path / 'elsewhere').mkdir()
        here = show.format(str(out))
        write(tmp_path, config=here + component('x', 'dead'), m=f'{here}def muddle(c): pass\n', p=here + PARSER)
        arguments = ['-c', '../config.py', '-m', '../m.py', '-a', '../p.py', '--extra-args', 'x']
        commands.run('-F', commands.ssh_config, *arguments, cwd=tmp_path / 'elsewhere', status=3)
        assert set(out.read_text().splitlines()) == {
            f'{tmp_path}/config.py {tmp_path}',
            f'{tmp_path}/m.py {tmp_path}/elsewhere',
            f'{tmp_path}/p.py {tmp_path}/elsewhere',
        }


class TestLog:
    def test_of_users_files_at_every_level(self, commands: Commands, tmp_path: Path) -> None:
        speak = (
            'import logging\n'
            'for level in ("debug", "info", "warning", "error"):\n'
            '    getattr(logging.getLogger(__name__), level)("%s of {0}", level)\n'
            'logging.warning("root of {0}")\n'
        )
        write(
            tmp_path,
            config=speak.format('config') + component('x', 'dead'),
            muddler=speak.format('muddler') + 'def muddle(config): logging.error("muddling")\n',
            parser=speak.format('parser') + PARSER,
        )
        words = ['-m', 'muddler.py', '-a', 'parser.py', '--extra-args', 'x']
        for number, level in enumerate(LEVELS):
            done = run(commands, tmp_path, *words, '-l', level)
            lines = done.stderr.splitlines()
            for kind in ('config', 'muddler', 'parser'):
                for other in LEVELS:
                    assert (f'{other}: {other.lower()} of {kind}' in lines) == (LEVELS.index(other) >= number)
                assert (f'WARNING: root of {kind}' in lines) == (number <= 2)
            assert 'ERROR: muddling' in lines
            assert done.stdout.count('of config') == 0

    def test_of_ours(self, site: Site) -> None:
        """All that is on stderr are records, and those of a level come at that level."""
        site.write(component('x', 'localhost'))
        shown = {}
        for level in LEVELS:
            done = site.deploy('-l', level)
            lines = done.stderr.splitlines()
            assert all(re.match('(DEBUG|INFO|WARNING|ERROR): ', line) for line in lines), done
            shown[level] = {line.split(':')[0] for line in lines}
        assert shown == {'DEBUG': {'DEBUG', 'INFO'}, 'INFO': {'INFO'}, 'WARNING': set(), 'ERROR': set()}


class Watcher:
    """Looks at all processes of this machine, those of test hosts among them, for texts that may not be there."""

    def __init__(self, *words: str) -> None:
        self._words = [word.encode() for word in words]
        self._end = Event()
        self._thread = Thread(target=self._watch)
        #: Where a word was seen: (word, pid, 'cmdline' or 'environ', the text).
        self.seen: set[tuple[str, int, str, str]] = set()
        self.rounds = 0

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        own = {str(os.getpid())}
        while not self._end.is_set():
            for pid in os.listdir('/proc'):
                if pid.isdigit() and pid not in own:
                    for file in ('cmdline', 'environ'):
                        self._look(int(pid), file)
            self.rounds += 1

    def _look(self, pid: int, file: str) -> None:
        with suppress(OSError):
            text = Path(f'/proc/{pid}/{file}').read_bytes()
            for word in self._words:
                if word in text:
                    self.seen.add((word.decode(), pid, file, text.decode(errors='replace')))

    def where(self, word: str) -> list[tuple[int, str, str]]:
        return [(pid, file, text) for seen, pid, file, text in self.seen if seen == word]


@pytest.fixture(scope='module')
def typists() -> Iterator[Testbed]:
    with Testbed(count=2) as bed:
        for host in bed.hosts:
            host.path(host.add_user('typist', password=SECRET)).joinpath('.ssh/authorized_keys').unlink()
        yield bed


class TestPassword:
    @pytest.fixture
    def typist(self, typists: Testbed, tmp_path: Path) -> Iterator[Site]:
        """Somebody who reaches h2 through h1, with the password alone, and h1 through a command."""
        config = ssh_config(
            tmp_path,
            typists,
            'Host *\n  IdentityFile none\n  User typist\n  ControlMaster no\n'
            'Host h1\n  ProxyCommand /bin/sh -c "exec nc %h %p"\nHost h2\n  ProxyJump h1\n',
        )
        if not shutil.which('nc'):
            config.write_text(config.read_text().replace('  ProxyCommand /bin/sh -c "exec nc %h %p"\n', ''))
        with Site(typists, tmp_path, config) as site:
            site.file('file')
            here = component('x', 'h1', base_dir='~/work', files={'file': 'file'}), component('y', 'h2')
            site.write(*here, component('z', 'localhost'))
            yield site

    @pytest.mark.parametrize('way', ['file', 'option'])
    def test_is_in_no_process_and_no_file_and_nothing_that_is_shown(self, typist: Site, way: str) -> None:
        password = typist.file('password', f'{SECRET}\n', 0o600)
        arguments = ['--pass', SECRET] if way == 'option' else []
        variables = {} if way == 'option' else {'RR_PASS_FILE': str(password)}
        with Watcher(SECRET, typist.session) as watcher:
            with typist.begin('-l', 'DEBUG', *arguments, variables=variables) as command:
                done = command.end()
                pid = command.pid
            plain = typist.run(*typist.arguments(*arguments), variables=variables)
        assert done.status == 0, done
        assert len(done.events('component_started')) == 3
        assert any(file == 'cmdline' and 'SCREEN' in text for _, file, text in watcher.where(typist.session))
        own = {seen for seen, _, text in watcher.where(SECRET) if seen == pid or '--screen' in text}
        found = [where for where in watcher.where(SECRET) if not (way == 'option' and where[0] in own)]
        assert found == []
        for text in (done.stdout, done.stderr, plain.stdout, plain.stderr):
            assert SECRET not in text
        for host in typist.bed.hosts:
            held = host.run(['grep', '-rlF', SECRET, '/root', '/home', '/tmp', '/run'], check=False).stdout
            assert held == b''
        here = [path for path in typist.home.rglob('*') if path.is_file()]
        assert [path for path in here if SECRET.encode() in path.read_bytes()] == []

    def test_is_masked_where_users_arguments_hold_it(self, typist: Site) -> None:
        password = typist.file('password', f'{SECRET}\n', 0o600)
        script = 'printf %s "$1" >got; sleep 0; [ "$2" ] && exit 3; exec sleep 100000'
        args = ['-c', script, 'x', f'db://user:{SECRET}@server']
        typist.write(
            component('good', 'h1', '/bin/sh', args, base_dir='~/masked'),
            component('bad', 'h1', '/bin/sh', [*args, 'fail'], base_dir='~/masked', start_index=1),
        )
        variables = {'RR_PASS_FILE': str(password)}
        done = typist.deploy('-l', 'DEBUG', variables=variables, status=1)
        got = typist.bed['h1'].path('/home/typist/masked/got')
        assert eventually_exists(got).read_text() == f'db://user:{SECRET}@server'
        plain = typist.run(*typist.arguments(), variables=variables, status=1)
        for text in (done.stdout, done.stderr, plain.stdout, plain.stderr):
            assert SECRET not in text
        here = [path for path in typist.home.rglob('*') if path.is_file()]
        assert [path for path in here if SECRET.encode() in path.read_bytes()] == []
