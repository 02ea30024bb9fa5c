"""What the command line of `remote_runner dsh` says, where that is plain, and what goes with the command.

It imports next to nothing, see `placement/client.py`; all that is not plain is read by `cli/dsh.py`.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: Variables of the environment that go with a command unless `--env` says otherwise.
ENVIRONMENT = (
    'PATH', 'LANG', 'LC_*', 'TERM', 'TZ', 'CC', 'CXX', 'CFLAGS', 'CXXFLAGS', 'LDFLAGS', 'MAKEFLAGS',
)  # fmt: skip
#: Words of MAKEFLAGS that mean something to processes below the same make(1) alone, on this machine.
_OWN_OF_MAKE = ('--jobserver-', '--sync-mutex', '-j', '--jobs')
#: Seconds that what one machine wrote has to be seen by another, on a network file system.
WAIT_FILES = 10.0
_UNITS = {'k': 10**3, 'M': 10**6, 'G': 10**9, 'T': 10**12}


class Options:
    """What the command line says.

    Attributes:
        prefer, exclude: names of hosts, or patterns.
        min_memory: bytes that must be free.
        platform: such hosts alone.
        hosts: those of these names alone; none: all.
        env: what `--env` says: NAME, NAME=VALUE, a pattern, or one of these behind `-`, which is left out.
        folder: of the host, in which it runs; None: ours, which has to be shared.
        wait_files: seconds that a host has to see the files that are here, and we have to see what it wrote.
        is_terminal: the command gets a terminal, if we have one.
        is_verbose: tell where it runs.
        has_no_input: its input is empty.
        command: its words.
        outputs: files that its output and its errors go to.
        ran_on: the host on which it runs, once that is known.
        has_ended: it ran to its end, or could not be executed.
    """

    def __init__(self) -> None:
        self.prefer: list[str] = []
        self.exclude: list[str] = []
        self.hosts: list[str] = []
        self.env: list[str] = []
        self.min_memory = 0
        self.platform: str | None = None
        self.folder: str | None = None
        self.wait_files = WAIT_FILES
        self.is_terminal = self.is_verbose = self.has_no_input = False
        self.command: list[str] = []
        self.outputs = (1, 2)
        self.ran_on: str | None = None
        self.has_ended = False


_FLAGS = {
    '-t': 'is_terminal', '--terminal': 'is_terminal',
    '-v': 'is_verbose', '--verbose': 'is_verbose',
    '-n': 'has_no_input', '--no-input': 'has_no_input',
}  # fmt: skip
_HOSTS = {'--prefer': 'prefer', '--exclude': 'exclude', '-x': 'exclude'}


def read(arguments: list[str]) -> Options | None:
    """What a command line says; None where that is not plain."""
    options = Options()
    words = iter(arguments)
    rest: list[str] = []
    for word in words:
        if word == '--':
            break
        if word[:1] != '-' or word == '-':
            rest.append(word)
            break
        if word in _FLAGS:
            setattr(options, _FLAGS[word], True)
            continue
        name, equals, value = word.partition('=')
        if not equals:
            value = next(words, '')
        if name == '--env' and value and value[0] != '=':
            options.env.append(value)
        elif name in _HOSTS and _is_plain(value):
            getattr(options, _HOSTS[name]).append(value)
        elif name == '--platform' and value:
            options.platform = value
        elif name == '--dir' and value:
            options.folder = value
        elif name == '--min-memory' and value[:-1].isdecimal() and value[-1] in _UNITS:
            options.min_memory = int(value[:-1]) * _UNITS[value[-1]]
        else:
            return None
    options.command = rest + list(words)
    return options if options.command else None


def _is_plain(name: str) -> bool:
    """Whether this is one host, or a pattern for fnmatch(3), and nothing that has to be unfolded first."""
    return name.translate({ord(character): None for character in '.-_*?'}).isalnum()


def environment(wanted: 'Iterable[str]') -> dict[str, str]:
    """The variables that go with a command: by default `ENVIRONMENT`, and what `--env` says."""
    given: dict[str, str] = {}
    patterns = [*ENVIRONMENT, *wanted]
    for pattern in patterns:
        if '=' in pattern and pattern[:1] != '-':
            name, _, value = pattern.partition('=')
            given[name] = value
        elif pattern[:1] == '-':
            given = {name: value for name, value in given.items() if not _matches(name, pattern[1:])}
        else:
            given.update((name, value) for name, value in os.environ.items() if name and _matches(name, pattern))
    if 'MAKEFLAGS' in given and 'MAKEFLAGS' not in (word.partition('=')[0] for word in wanted):
        given['MAKEFLAGS'] = without_jobserver(given['MAKEFLAGS'])
    return given


def _matches(name: str, pattern: str) -> bool:
    if pattern[-1:] == '*' and not set(pattern[:-1]) & set('*?['):
        return name.startswith(pattern[:-1])
    if set(pattern) & set('*?['):
        from fnmatch import fnmatchcase

        return fnmatchcase(name, pattern)
    return name == pattern


def without_jobserver(flags: str) -> str:
    """MAKEFLAGS without what only this machine's make(1) can serve: who asks a jobserver that is not there waits."""
    options, dashes, variables = flags.partition(' -- ')
    kept = [word for word in options.split(' ') if word != '--jobs' and not word.startswith(_OWN_OF_MAKE)]
    return ' '.join(kept) + dashes + variables
