"""The `util` of configs, muddlers and arg parsers: what makes lists of files, hosts and parameters short to write."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_runner.config.exclude import Exclusion
from remote_runner.config.least_loaded import LeastLoaded
from remote_runner.config.paths import TreePath, expanded
from remote_runner.config.reading import BadValueError, plain, read_size, shown
from remote_runner.config.trees import below, leaves
from remote_runner.defaults import LOCALHOST
from remote_runner.hosts.address import Address, parse_hosts

if TYPE_CHECKING:
    from remote_runner.config.parameters import Parameters

__all__ = ['glob_files_dict', 'hosts', 'least_loaded', 'parameters', 'product', 'recursive_files_dict', 'zip']

_WILDCARD = re.compile(r'[*?[]')
_config_dir: ContextVar[str | None] = ContextVar('_config_dir', default=None)


def recursive_files_dict(
    src: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    exclude: str | Iterable[str] = (),
    links: str = 'follow',
) -> dict[str, str]:
    """All that is below the local directory `src`, for `component.files`: the remote paths are below `dest`.

        component.files = util.recursive_files_dict('data', '.')             # into base_dir
        component.files.update(util.recursive_files_dict('keys', '/etc/keys'))
        component.files = util.recursive_files_dict('src', 'src', exclude=['*.o', 'build/', '/notes.txt'])

    Empty directories are in it too, as directories to create. A relative `src` is relative to the working directory,
    which in a config is the config's own; the keys then are relative as well. Elsewhere (a muddler runs in the caller's
    working directory) they are absolute, so that they mean the same files.

    The remote paths are text that remembers `dest`, `exclude` and what is a link: the dict, or its values, may be
    copied and put into others, but a value that is replaced by text of your own is an entry as any other.

    Args:
        src: the local directory.
        dest: the remote directory that it becomes; what is in `src` is in it.
        exclude: what is left out: a pattern or several, as in a `.gitignore` in `src`. A directory that is left out is
            not entered.
        links: `'follow'`: what a symbolic link leads to is brought. `'keep'`: the link itself is, with the same target,
            wherever that leads. `src` may be a link in any case.

    Raises:
        FileNotFoundError, NotADirectoryError, PermissionError: `src`, or what is below it, is not there, no directory,
            or not readable.
        TypeError: a pattern is no text.
        ValueError: a link that is followed leads back to a directory above it; a pattern can match nothing; `links` is
            something else. A link that is followed to nothing is told with all other faults of the config.
    """
    if links not in ('follow', 'keep'):
        raise ValueError(f"links must be 'follow' or 'keep', is {shown(links)}")
    top, root = os.fspath(src), os.fspath(dest) or '/'
    key = _key(top)
    exclusion = Exclusion(exclude)
    return {
        below(key, leaf.path): TreePath(below(root, leaf.path), root, leaf.is_link, exclusion.patterns)
        for leaf in leaves(top, exclusion, keep_links=links == 'keep')
    }


def glob_files_dict(pattern: str, dest: str | os.PathLike[str], exclude: str | Iterable[str] = ()) -> dict[str, str]:
    """All local files that match `pattern` (`bin/*.jar`, `**` for any depth), flat below the remote directory `dest`.

    Relative patterns and keys are as with `recursive_files_dict`.

    Args:
        pattern: which files.
        dest: the remote directory.
        exclude: what is left out of them: a pattern or several, as in a `.gitignore` in the directory that `pattern`
            names before its first wildcard.

    Raises:
        FileNotFoundError: no file matches.
        TypeError: a pattern is no text.
        ValueError: two files of the same name match; a pattern of `exclude` can match nothing.
    """
    exclusion = Exclusion(exclude)
    anchor = Path(pattern).anchor
    found = sorted(Path(anchor or '.').glob(pattern.removeprefix(anchor)))
    top = Path(*takewhile(lambda part: not _WILDCARD.search(part), Path(pattern).parts[:-1]))
    files = [str(path) for path in found if path.is_file() and not _is_excluded(path.relative_to(top), exclusion)]
    if not files:
        raise FileNotFoundError(f'no file matches {pattern!r} in {Path.cwd()}')
    result: dict[str, str] = {}
    names: dict[str, str] = {}
    for path in files:
        name = Path(path).name
        if name in names:
            raise ValueError(f'{names[name]} and {path} would both become {name} in {os.fspath(dest)}')
        names[name] = path
        result[_key(path)] = below(os.fspath(dest), name)
    return result


def hosts(*texts: str) -> list[str]:
    """All hosts that `texts` mean, in order, each one once.

        util.hosts('node[1-40]')               # node1 to node40
        util.hosts('root@gate:2222, node[1-3]')
        util.hosts('@hosts.txt')               # a file with one or more a line, comments after #

    Raises:
        AddressError: a text cannot be understood, or a file cannot be read.
    """
    return [address.where for address in parse_hosts(texts)]


def least_loaded(
    hosts: str | Iterable[str] | None = None,
    min_memory: int | str = 0,
    platform: str | None = None,
    count: int | None = None,
    spread: bool | str = False,
) -> LeastLoaded:
    """For `component.host`: that of some hosts which has the least load when the run is carried out.

        component.host = util.least_loaded('node[1-40]')
        component.host = util.least_loaded(['big1 0.5', 'node[1-3]'], min_memory='4G')   # big1 counts as twice as fast
        component.host = util.least_loaded('@hosts.txt', count=3)          # it runs three times, on three hosts
        component.host = util.least_loaded('node[1-9]', spread=True)       # and no other one with this on that host

    Args:
        hosts: one text or several, each a list of hosts, folded (`node[1-40]`) or `@FILE`, with weights as in a cluster
            file; None: all of the cluster file but `localhost`.
        min_memory: bytes of memory that must be free there, also as text: `'4G'` (1 G is 1,000,000,000 bytes).
        platform: what it must be, as `'linux-x86_64'` (what `uname -sm` says). None: any.
        count: the component is started so many times, each on another host, the best ones. None: once.
        spread: True: no two of the components that have an equal value of this are on one host. Text: a name, and no
            two of the components that have it are.

    Raises:
        AddressError: the hosts cannot be understood, or a file cannot be read.
        TypeError, ValueError: something else cannot be; `localhost` is among the hosts, or there are none.
    """
    if platform is not None and not isinstance(platform, str):
        raise TypeError(f"platform must be text as 'linux-x86_64', is {shown(platform)}")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
        raise TypeError(f'count must be a whole number, is {shown(count)}')
    if count is not None and count < 1:
        raise ValueError(f'count must be at least 1, is {count}')
    if not isinstance(spread, (bool, str)):
        raise TypeError(f'spread must be True, False or a name, is {shown(spread)}')
    try:
        memory = read_size(min_memory)
    except BadValueError as bad:
        raise ValueError(f'min_memory {bad}') from None
    return LeastLoaded(None if hosts is None else _candidates(hosts), memory, platform, count, spread)


def parameters(file: str | os.PathLike[str]) -> Parameters:
    """The parameter sets of a file: cells separated by `|`, names in its first line, a set in each line after it.

        rate | seed | data
        1    | 7    | small.csv
        10   | 7    | large file.csv

    Empty lines do not count, nor do spaces around a cell. All values are text. A cell cannot hold a `|` or a newline;
    `product` and `zip` take any text.

    Args:
        file: its path, in UTF-8; a relative one is relative to the config.

    Raises:
        ConfigError: it cannot be read, a line has another number of cells than the first, or a name is none; the
            message names file and line.
    """
    from remote_runner.config.parameters import read_table  # late, as below: most configs have no use for it

    return read_table(Path(_config_dir.get() or '.') / expanded(os.fspath(file)))


def product(*sets: Parameters, **values: Iterable[Any]) -> Parameters:
    """Parameter sets: each value with each of the others; the last parameter changes fastest.

        util.product(rate=[1, 10], seed=range(5))
        util.product(util.parameters('machines.csv'), seed=range(5))

    They are made one by one when they are needed, however many they are.

    Args:
        sets: parameter sets to combine with the values; they come first.
        values: of each parameter, any iterable but text.

    Raises:
        TypeError: what was given is nothing of the kind.
        ValueError: a name is given twice.
    """
    from remote_runner.config.parameters import product

    return product(*sets, **values)


def zip(*sets: Parameters, **values: Iterable[Any]) -> Parameters:  # noqa: A001 - what users write is `util.zip`
    """Parameter sets: the first values of all parameters, the second ones, and so on.

        util.zip(rate=[1, 10, 100], seed=[7, 8, 9])

    Args:
        sets: parameter sets to combine with the values; they come first.
        values: of each parameter, any iterable but text.

    Raises:
        TypeError: what was given is nothing of the kind.
        ValueError: there are more of one than of another, or a name is given twice.
    """
    from remote_runner.config.parameters import zipped

    return zipped(*sets, **values)


@contextmanager
def relative_to(config_dir: str) -> Iterator[None]:
    """While this lasts, relative local paths in `files` mean files below `config_dir` (for the loader)."""
    token = _config_dir.set(config_dir)
    try:
        yield
    finally:
        _config_dir.reset(token)


def _candidates(hosts: str | Iterable[str]) -> tuple[Address, ...]:
    """The hosts that texts mean, without slots, which mean nothing to components."""
    texts = [hosts] if isinstance(hosts, str) else list(hosts)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f'hosts must be text or a list of texts, one is {shown(text)}')
    addresses = tuple(address._replace(slots=None) for address in parse_hosts(map(plain, texts)))
    if not addresses:
        raise ValueError('there are no hosts; None stands for those of the cluster file')
    if any(address.name == LOCALHOST for address in addresses):
        raise ValueError(f'{LOCALHOST} cannot be one of several hosts: paths mean something else there')
    return addresses


def _is_excluded(path: Path, exclusion: Exclusion) -> bool:
    """Whether a file, or a folder that it is in, is left out."""
    folders = (str(folder) for folder in path.parents if folder.name)
    return exclusion.excludes(str(path), is_folder=False) or any(
        exclusion.excludes(folder, is_folder=True) for folder in folders
    )


def _key(path: str) -> str:
    """A local path as a key of `files`: as it is where it means the same to the plan, else absolute."""
    config_dir = _config_dir.get()
    if config_dir is not None and Path.cwd() == Path(config_dir):
        return f'./{path}' if path.startswith('~') else path  # what is called so is no home directory
    return str(Path.cwd() / path)
