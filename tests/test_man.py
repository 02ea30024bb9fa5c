"""The man page: complete, and right to man(1)."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from remote_runner.cli.shell.commands import Command, commands
from remote_runner.cli.shell.man import page
from tests.commands import ROOT, Commands


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('man') / 'remote_runner.1'
    path.write_text(page())
    return path


@pytest.fixture(scope='module')
def text(source: Path) -> str:
    """The page as people read it."""
    return re.sub('.\b', '', man(source, '-Tutf8').stdout)  # bold is a letter upon itself


def man(source: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {'PATH': '/usr/bin:/bin', 'LANG': 'C.UTF-8', 'MANWIDTH': '100', 'MANPAGER': 'cat'}
    command = ['man', '--warnings', '-E', 'UTF-8', '-l', *options, str(source)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment)


def test_the_formatter_warns_of_nothing(source: Path) -> None:
    assert man(source, '-Tutf8', '-Z').stderr == ''
    source.with_name('wrong.1').write_text(source.read_text() + '.wrong\n')
    assert 'wrong' in man(source.with_name('wrong.1'), '-Tutf8', '-Z').stderr


def test_it_is_printed(source: Path, tmp_path: Path) -> None:
    done = Commands(tmp_path / 'home', tmp_path / 'none').run('completion', 'man')
    assert done.stdout == source.read_text()


def test_all_sections_stand_in_their_order(text: str) -> None:
    assert re.findall(r'^[A-Z][A-Z ]+$', text, re.MULTILINE) == [
        'NAME', 'SYNOPSIS', 'DESCRIPTION', 'COMMANDS', 'EXIT STATUS', 'ENVIRONMENT', 'FILES', 'EXAMPLES', 'SEE ALSO',
    ]  # fmt: skip


def squeezed(text: str) -> str:
    """Text without spaces: lines are broken behind hyphens too."""
    return re.sub(r'[`\s]', '', text)


@pytest.mark.parametrize('command', commands(), ids=lambda command: command.name)
def test_all_of_a_command_stands_there(command: Command, text: str) -> None:
    found = re.search(rf'^   remote_runner {command.name}$(.*?)^(?=   \w|\w)', text, re.MULTILINE | re.DOTALL)
    assert found
    section, whole = squeezed(found[1]), squeezed(text)
    texts = [*command.usage.split('\n'), *(line for line in command.description.split('\n') if line[:4] == '    ')]
    texts += [squeezed(', '.join(option.names)) for option in command.options]
    texts += [option.help for option in command.options]
    assert [missing for missing in texts if squeezed(missing) not in whole] == []
    assert [operand for operand in command.operands if squeezed(operand.help) not in section] == []
    own = [option for group in command.groups if not group.title for option in group.options]
    if 'Itsoptionsarethoseof' not in section:
        assert [option for option in own if squeezed(', '.join(option.names)) not in section] == []
    status = text.partition('\nEXIT STATUS\n')[2].partition('\nENVIRONMENT\n')[0]
    assert f'remote_runner {command.name}\n' in status


def test_the_environment_is_that_of_the_docs(text: str) -> None:
    listed = (ROOT / 'docs/command-line.md').read_text().partition('## Environment')[2]
    for name in re.findall(r'^`(\w+)`$', listed, re.MULTILINE):
        assert re.search(rf'^       {name}\b', text, re.MULTILINE), name


def test_special_letters_arrive(text: str) -> None:
    assert "jq '.indexes[].components[].name'" in text
    assert '--extra-args "--hosts h1,h2"' in text
    assert '~/.cache/remote_runner/' in text


def test_the_build_needs_nothing_but_the_standard_library(source: Path) -> None:
    """hatch_build.py calls it in an environment that holds hatchling alone."""
    code = 'import sys; from remote_runner.cli.shell.man import page; sys.stdout.write(page())'
    done = subprocess.run([sys.executable, '-S', '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == source.read_text(), done.stderr
    build = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['hatch']['build']['targets']
    assert 'custom' in build['wheel']['hooks']
    assert 'hatch_build.py' in build['sdist']['include']
