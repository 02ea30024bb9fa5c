"""The pages of the docs as their readers take them: files to write, commands to type, and what is then shown.

A block whose first line (or second, after `#!`) is `# some/name.py` is that file. Blocks of the language `console` hold
commands after `$ `, and below each what it shows.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.testbed import Testbed

ROOT = Path(__file__).resolve().parents[1]
PATHS = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
PATIENCE = 60.0  # seconds for all commands of a page

_BLOCK = re.compile(r'^```(?P<language>\w+)\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)
_NAME = re.compile(r'(?:#!.*\n)?# (?P<name>[\w./-]+)\n')
#: Commands that are for a person at a terminal, or that set up what the tests have already.
_FOR_PEOPLE = re.compile(
    r'screen -x|ssh -t|git clone|cd |python3 -m venv|(\.venv/bin/)?pip install|\. \.venv|scripts/(demo|test)'
)
#: Commands that are run.
_SUBCOMMANDS = 'plan|exec|batch|sweep|hosts trust|load|status|logs|stop|restart|signal|wait|ps'
_RUN = re.compile(rf'remote_runner( ({_SUBCOMMANDS})\b)? ?|ssh |screen |chmod ')

# The commands of a page run in namespaces of their own: their sessions and locks are nobody else's, and all that they
# leave on this machine ends with them.
_SESSION = """\
mkdir -p -m 700 /tmp/remote_runner-0 && mount -t tmpfs -o mode=700 tmpfs /tmp/remote_runner-0
mkdir -p /run/screen && mount -t tmpfs -o mode=1777 tmpfs /run/screen
cd {folder}
{commands}
"""


@dataclass(frozen=True)
class Command:
    """A command of a page, and the lines that the page shows below it."""

    text: str
    shown: tuple[str, ...]

    @property
    def is_run(self) -> bool:
        return _RUN.match(self.text) is not None and not _FOR_PEOPLE.match(self.text)

    @property
    def is_known(self) -> bool:
        """Whether somebody thought of how to treat it."""
        return self.is_run or _FOR_PEOPLE.match(self.text) is not None

    def with_ssh_config(self, path: Path) -> str:
        """The command, told of other hosts than those in the user's own ssh_config."""
        found = _RUN.match(self.text)
        if found is None or self.text.startswith(('chmod', 'screen')):
            return self.text
        return f'{found.group().rstrip()} -F {shlex.quote(str(path))} {self.text[found.end() :]}'


@dataclass(frozen=True)
class Shown:
    """What a command has shown in truth."""

    command: Command
    status: int
    out: str
    err: str


class Page:
    """One page."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.text = path.read_text()

    @cached_property
    def blocks(self) -> list[tuple[str, str]]:
        """Language and text of each block of code."""
        return [(found['language'], found['text']) for found in _BLOCK.finditer(self.text)]

    @cached_property
    def prose(self) -> str:
        """The page without its blocks of code."""
        return re.sub(r'^(`{3,}|:{3,}).*?^\1$', '', self.text, flags=re.MULTILINE | re.DOTALL)

    @cached_property
    def files(self) -> dict[str, str]:
        """The files that the page has its readers write."""
        return {found['name']: text for _, text in self.blocks if (found := _NAME.match(text))}

    @cached_property
    def commands(self) -> list[Command]:
        """All commands, in order."""
        commands = []
        for language, text in self.blocks:
            if language == 'console':
                for part in re.split(r'^\$ ', text.replace('\\\n', ' '), flags=re.MULTILINE)[1:]:
                    command, *shown = part.rstrip('\n').split('\n')
                    commands.append(Command(re.sub(r'\s+', ' ', command), tuple(shown)))
        return commands

    def play(self, folder: Path, bed: Testbed) -> list[Shown]:
        """Do in `folder` what the page says, with the hosts of `bed` as node1, node2 and so on."""
        for name, text in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        for name in ('example', 'muddlers'):
            (folder / name).symlink_to(ROOT / name)
        commands = [command for command in self.commands if command.is_run]
        config = _ssh_config(folder, bed, known=not any('hosts trust' in command.text for command in commands))
        lines = [
            f'{{ {command.with_ssh_config(config)}\n}} >{folder}/out.{number} 2>{folder}/err.{number}; '
            f'echo $? >{folder}/status.{number}'
            for number, command in enumerate(commands)
        ]
        self._run(_SESSION.format(folder=shlex.quote(str(folder)), commands='\n'.join(lines)), folder)
        return [
            Shown(
                command,
                int((folder / f'status.{number}').read_text()),
                (folder / f'out.{number}').read_text(),
                (folder / f'err.{number}').read_text(),
            )
            for number, command in enumerate(commands)
        ]

    def _run(self, script: str, folder: Path) -> None:
        bin_folder = folder / '.bin'
        bin_folder.mkdir()
        (bin_folder / 'remote_runner').write_text(f'#!/bin/sh\nexec {sys.executable} -m remote_runner "$@"\n')
        (bin_folder / 'remote_runner').chmod(0o755)
        environment = {
            'HOME': str(folder / '.home'),
            'PATH': f'{bin_folder}:{os.environ["PATH"]}',
            'PYTHONPATH': str(ROOT),
            'TERM': 'dumb',
        }
        (folder / '.home').mkdir()
        master, slave = os.openpty()  # who is asked for a confirmation says yes
        try:
            os.write(master, b'yes\n' * script.count('hosts trust'))
            namespaces = ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc']
            subprocess.run(
                [*namespaces, 'bash', '-c', script], check=True, stdin=slave, env=environment, timeout=PATIENCE
            )
        finally:
            os.close(master)
            os.close(slave)


def _ssh_config(folder: Path, bed: Testbed, *, known: bool) -> Path:
    """An ssh_config that calls the hosts of the bed node1, node2, …, whose keys are known or not."""
    known_hosts = folder / '.known_hosts'
    known_hosts.write_text(bed.known_hosts.read_text() if known else '')
    path = folder / '.ssh_config'
    path.write_text(
        ''.join(f'Host node{number}\n  HostName {host.address}\n' for number, host in enumerate(bed.hosts, 1))
        + f'Host *\n  User root\n  IdentityFile {bed.key}\n  IdentitiesOnly yes\n'
        + f'  UserKnownHostsFile {known_hosts}\n  GlobalKnownHostsFile /dev/null\n'
    )
    return path


def alike(text: str, folder: Path) -> list[str]:
    """The lines of `text` without what differs from run to run: numbers, fingerprints, ids, the test's own paths."""
    text = text.replace(f'-F {folder}/.ssh_config ', '').replace(f'{folder}/', '')
    text = re.sub(r'\d{8}-\d{6}-[0-9a-f]{4,5}', 'RUN', text)
    text = re.sub(r'SHA256:\S+', 'SHA256', text)
    text = re.sub(r'(\[yes/no\]).*', r'\1', text)  # what a person types is on no stream
    text = re.sub(r'\d+(\.\d+)*(:22)?(?!\w)', '0', text)
    return [' '.join(line.split()) for line in text.splitlines()]
