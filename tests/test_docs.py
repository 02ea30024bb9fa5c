"""README and docs are true: their examples run and show what the pages say, and all they name is there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from remote_runner.agent import main, starter
from remote_runner.cli.jobs import OTHERS as OF_JOBS
from remote_runner.cli.main import COMMANDS
from remote_runner.hosts import bootstrap, handshake, pool, ssh, ssh_config, transport
from remote_runner.placement import attended, command_line, daemon, keeper, member, told
from tests.deploying import sessions
from tests.pages import PATHS, ROOT, Page, alike
from tests.testbed import Testbed

PAGES = [Page(path) for path in PATHS]
#: Files that the reader of a page has.
TAKEN_FOR_GRANTED = ['bin/worker', 'bin/server', 'bin/client', 'data/input.csv']


@pytest.fixture(scope='module')
def docs_bed() -> Iterator[Testbed]:
    """Hosts on which sessions may have the names that the docs use."""
    with Testbed(3) as bed:
        yield bed


def pages_that(has: str) -> pytest.MarkDecorator:
    chosen = [page for page in PAGES if getattr(page, has)]
    return pytest.mark.parametrize('page', chosen, ids=[page.name for page in chosen])


@pages_that('commands')
def test_commands_show_what_the_page_says(page: Page, docs_bed: Testbed, tmp_path: Path) -> None:
    for name in TAKEN_FOR_GRANTED:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('#!/bin/sh\nexec sleep 600\n')
        path.chmod(0o755)
    assert [command.text for command in page.commands if not command.is_known] == []
    if not any(session.name == 'runner' for session in sessions(docs_bed['h1'])):
        docs_bed['h1'].run(['screen', '-dmS', 'runner', 'sleep', '600'])  # pages that deploy nothing speak of one
    for shown in page.play(tmp_path, docs_bed):
        said = shown.out + shown.err
        missing = set(alike('\n'.join(shown.command.shown), tmp_path)) - set(alike(said, tmp_path))
        assert not missing, f'$ {shown.command.text}\n{said}'
        failure_is_shown = any('ERROR' in line for line in shown.command.shown)
        assert (shown.status != 0) == failure_is_shown, f'$ {shown.command.text} ended with {shown.status}\n{said}'


@pages_that('files')
def test_all_files_of_a_page_are_used_by_its_commands(page: Page) -> None:
    typed = ' '.join(command.text for command in page.commands) + ' '.join(page.files.values())
    assert [name for name in page.files if typed.count(name) < (2 if f'# {name}\n' in typed else 1)] == []


@pytest.mark.parametrize('page', PAGES, ids=[page.name for page in PAGES])
class TestNames:
    """What a page names is there."""

    def test_options(self, page: Page) -> None:
        known: set[str] = set()
        for module, _ in COMMANDS.values():
            known |= set(import_module(module).make_parser()._option_string_actions)
        for module in OF_JOBS.values():
            known |= set(import_module(module).make_parser()._option_string_actions)
        known |= set(re.findall(r"'(--[\w-]+)'", (ROOT / 'example/arg_parser.py').read_text() + page.text))
        code = re.findall(r'`[^`]+`', page.prose) + [
            command.text for command in page.commands if 'remote_runner' in command.text
        ]
        used = {option for text in code for option in re.findall(r'(?<![\w-])--[a-z][a-z-]+', text)}
        assert used - known == set()

    def test_files_of_the_repository(self, page: Page) -> None:
        folders = 'scripts|example|muddlers|docs|tests|benchmarks'
        named = re.findall(rf'(?<![\w/.-])(?:{folders})/[\w/.-]*', page.text)
        assert [path for path in named if not (ROOT / path.rstrip('.')).exists()] == []

    def test_links(self, page: Page) -> None:
        for target in re.findall(r'\]\(([^)]+)\)', page.prose):
            path, _, anchor = target.partition('#')
            file = page.path.parent / path if path else page.path
            assert file.exists(), target
            if anchor:
                text = file.read_text()
                headings = re.findall(r'^#+ (.*)$', text, re.M)
                anchors = {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}
                assert anchor in anchors or f'({anchor})=' in text, target

    def test_nothing_of_this_machine(self, page: Page) -> None:
        assert re.findall(r'/work/|/root/|/tmp/tmp|remote_runner-testbeds|pyenv', page.text) == []


def test_the_options_that_users_files_see(tmp_path: Path) -> None:
    config = tmp_path / 'config.py'
    config.write_text('raise SystemExit(" ".join(vars(options)))\n')
    argv = [sys.executable, '-m', 'remote_runner', '-c', config]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
    table = (ROOT / 'docs/muddlers.md').read_text().partition('(options)=')[2]
    named = {name for row in re.findall(r'^\| (`.*?) \|', table, re.M) for name in re.findall(r'`(\w+)`', row)}
    there = {word for line in done.stderr.splitlines() for word in line.split() if word.isidentifier()}
    assert named <= there, done.stderr
    assert 'remote_done_dir' in named


def test_the_table_of_time_limits() -> None:
    text = (ROOT / 'docs/hosts.md').read_text()
    for words, seconds in [
        ('TCP connection and SSH banner', ssh_config.CONNECT_TIMEOUT),
        ('key exchange', handshake.KEX_LIMIT),
        ('each attempt to log in', ssh.AUTH_LIMIT),
        ('start of the agent', bootstrap.BOOTSTRAP_TIMEOUT),
        ('a silent connection counts as dead', transport.SILENCE_LIMIT),
    ]:
        assert f'| {words} | {seconds:g} s |' in text
    assert f'`--fanout` hosts ({pool.FANOUT})' in text
    assert f'at most {ssh.PENDING} connections' in text


def test_the_times_of_dsh() -> None:
    text = ' '.join((ROOT / 'docs/dsh.md').read_text().split())
    delays = ', '.join(f'{member.delay_after(count, None, 1.0):g} s' for count in range(3))
    for words in (
        f'Each host looks at this every {keeper.INTERVAL:g} s',
        f'One that is silent for {member.SILENCE * keeper.INTERVAL:g} s',
        f'is tried again after {delays} and so on up to a minute ({member.REFUSED_DELAY / 60:g} minutes where',
        f'if the host does not say within {attended.WAIT_HEARD:g} s that it passed it on',
        f'dsh says so after {transport.SILENCE_LIMIT:g} s of silence, and the host ends the command after a minute',
        f'If something is not seen within {command_line.WAIT_FILES:g} s (`--wait-files SECONDS`)',
        f'one that does not answer within {told.PATIENCE:g} s',
        f'it makes another one within {daemon.LOOK:g} s',
    ):
        assert words in text
    assert (starter.GRACE, main.SILENCE, member.MOST_DELAY) == (2.0, 60.0, 60.0)  # the docs have words for these


class TestPythonExamples:
    def test_deploy(self, docs_bed: Testbed, tmp_path: Path) -> None:
        config = tmp_path / 'config.py'
        config.write_text(
            'for host in util.hosts("h[1-3]"):\n'
            '    config.add_component(Component(name="c", host=host, executable="/bin/sleep", args=[600]))\n'
        )
        said = self.run('deploy.py', config, docs_bed.ssh_config).splitlines()
        assert [re.sub(r'\d+$', 'PID', line) for line in sorted(said)] == [
            f'c runs on {host} as process PID' for host in ('h1', 'h2', 'h3')
        ]

        seen = self.run('after.py', 'from-python', 'h[1-3]', docs_bed.ssh_config).splitlines()
        assert sorted(seen) == ['3 stopped', 'c@h1 started', 'c@h2 started', 'c@h3 started']
        assert not any(found.name == 'from-python' for host in docs_bed.hosts for found in sessions(host))

    def test_build(self, docs_bed: Testbed) -> None:
        assert re.fullmatch(r'(h[12]: .*load average.*\n){2}', self.run('build.py', 'h[1-2]', docs_bed.ssh_config))

    def test_batch(self, docs_bed: Testbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('XDG_STATE_HOME', str(tmp_path))
        assert self.run('batch.py', '2/h[1-2]', docs_bed.ssh_config) == '285\n'

    @staticmethod
    def run(name: str, *arguments: str | Path) -> str:
        argv = [sys.executable, ROOT / 'docs/examples' / name, *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout
