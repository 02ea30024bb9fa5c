"""The words that completion scripts ask for: `remote_runner completion --words hosts [SSH_CONFIG]`, `... components`.

Somebody waits for them with a finger on the Tab key, so this imports next to nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from remote_runner.errors import UsageError
from remote_runner.hosts.ssh_config_lines import config_files, home, lines, split

_KNOWN_HOSTS = ('~/.ssh/known_hosts', '~/.ssh/known_hosts2', '/etc/ssh/ssh_known_hosts', '/etc/ssh/ssh_known_hosts2')
#: In names that stand for several hosts, or for none.
_NO_NAME = '*?!|"%'


def main(arguments: Sequence[str]) -> int:
    """Print the words of the kind that the first argument names, one a line.

    Raises:
        UsageError: there is no such kind.
        HostError: an ssh_config cannot be read.
    """
    kind, *rest = arguments or ['']
    if kind == 'hosts':
        words = hosts(rest[0] if rest and rest[0] else None)
    elif kind == 'components':
        words = components(rest[0] if rest and rest[0] else None)
    elif kind == 'sessions':
        words = sorted(folder.name for folder in _sessions())
    else:
        raise UsageError(f'there are no words of the kind {kind!r}', remedy='hosts, components or sessions')
    print(*words, sep='\n', end='\n' if words else '')  # noqa: T201
    return 0


def hosts(config_file: str | None) -> list[str]:
    """The hosts that ssh_config (that of `ssh -F` if given) and the known_hosts files name, as `-H` takes them."""
    found: dict[str, None] = {}
    known_hosts: list[str] = []
    for line in lines(config_files(config_file), must_exist=config_file is not None):
        keyword, value = split(line.strip())
        if keyword == 'host':
            found.update(dict.fromkeys(name for name in value.partition('#')[0].split() if _is_name(name)))
        elif keyword in ('userknownhostsfile', 'globalknownhostsfile'):
            known_hosts += (path.strip('"') for path in value.split())
    for path in dict.fromkeys(known_hosts or _KNOWN_HOSTS):
        found.update(dict.fromkeys(_known(Path(path.replace('~', home(), 1) if path.startswith('~/') else path))))
    return sorted(found)


def _is_name(text: str) -> bool:
    return not any(letter in _NO_NAME for letter in text)


def _known(file: Path) -> Iterator[str]:
    """The names in a known_hosts file, but for hashed ones, patterns, and lines with a marker; see sshd(8)."""
    try:
        text = file.read_text(errors='replace')
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for line in text.splitlines():
        names = line.split(None, 1)[0] if line.strip() else '#'
        if names.startswith(('#', '@')):
            continue
        for name in names.split(','):
            if _is_name(name):
                yield _as_written(name)


def _as_written(name: str) -> str:
    """`[name]:port` as a host is written here; only an IPv6 address keeps its brackets."""
    host, bracket, port = name.removeprefix('[').partition(']')
    return f'{host}{port}' if bracket and ':' not in host else name


def components(session: str | None) -> list[str]:
    """The names of components of the newest run (of this session), and `name@host` where one is on several hosts."""
    runs = [run for folder in _sessions() if session in (None, folder.name) for run in folder.iterdir()]
    records = [record for run in runs if (record := run / 'record.json').exists()]
    if not records:
        return []
    import json

    newest = max(records, key=lambda record: (record.stat().st_mtime_ns, record.parent.name))
    there = [(one['name'], one['host']) for one in json.loads(newest.read_text())['components']]
    names = [name for name, _ in there]
    return sorted({*names, *(f'{name}@{host}' for name, host in there if names.count(name) > 1)})


def _sessions() -> list[Path]:
    """The folders of all sessions that runs were recorded of."""
    state = os.environ.get('XDG_STATE_HOME') or Path('~/.local/state').expanduser()
    folder = Path(state, 'remote_runner', 'runs')
    return [entry for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
