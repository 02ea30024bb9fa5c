"""The `util` of configs, muddlers and arg parsers: what makes lists of files and hosts short to write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from remote_runner.hosts.address import parse_hosts

__all__ = ['glob_files_dict', 'hosts', 'recursive_files_dict']

_config_dir: ContextVar[str | None] = ContextVar('_config_dir', default=None)


def recursive_files_dict(src: str | os.PathLike[str], dest: str | os.PathLike[str]) -> dict[str, str]:
    """All that is below the local directory `src`, for `component.files`: the remote paths are below `dest`.

        component.files = util.recursive_files_dict('data', '.')             # into base_dir
        component.files.update(util.recursive_files_dict('keys', '/etc/keys'))

    Empty directories are in it too, as directories to create. Symbolic links are followed. A relative `src` is relative
    to the working directory, which in a config is the config's own; the keys then are relative as well. Elsewhere (a
    muddler runs in the caller's working directory) they are absolute, so that they mean the same files.

    Raises:
        FileNotFoundError, NotADirectoryError, PermissionError: `src`, or what is below it, is not there, no directory,
            or not readable.
        ValueError: a link leads back to a directory above it.
    """
    return _files_dict(os.fspath(src), os.fspath(dest), ())


def glob_files_dict(pattern: str, dest: str | os.PathLike[str]) -> dict[str, str]:
    """All local files that match `pattern` (`bin/*.jar`, `**` for any depth), flat below the remote directory `dest`.

    Relative patterns and keys are as with `recursive_files_dict`.

    Raises:
        FileNotFoundError: no file matches.
        ValueError: two files of the same name match.
    """
    anchor = Path(pattern).anchor
    found = sorted(Path(anchor or '.').glob(pattern.removeprefix(anchor)))
    files = [str(path) for path in found if path.is_file()]
    if not files:
        raise FileNotFoundError(f'no file matches {pattern!r} in {Path.cwd()}')
    result: dict[str, str] = {}
    names: dict[str, str] = {}
    for path in files:
        name = Path(path).name
        if name in names:
            raise ValueError(f'{names[name]} and {path} would both become {name} in {os.fspath(dest)}')
        names[name] = path
        result[_key(path)] = _below(os.fspath(dest), name)
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


@contextmanager
def relative_to(config_dir: str) -> Iterator[None]:
    """While this lasts, relative local paths in `files` mean files below `config_dir` (for the loader)."""
    token = _config_dir.set(config_dir)
    try:
        yield
    finally:
        _config_dir.reset(token)


def _files_dict(src: str, dest: str, above: tuple[tuple[int, int], ...]) -> dict[str, str]:
    status = Path(src).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise ValueError(f'{src} leads back to a directory above it')
    result: dict[str, str] = {}
    for name in sorted(entry.name for entry in Path(src).iterdir()):
        path, target = _below(src, name), _below(dest, name)
        if Path(path).is_dir():
            result.update(_files_dict(path, target, (*above, here)))
        else:
            result[_key(path)] = target
    return result or {_key(src): dest}


def _below(directory: str, name: str) -> str:
    """`directory/name` as text, `directory` left as it is written."""
    return directory + name if directory.endswith('/') else f'{directory}/{name}'


def _key(path: str) -> str:
    """A local path as a key of `files`: as it is where it means the same to the plan, else absolute."""
    config_dir = _config_dir.get()
    if config_dir is not None and Path.cwd() == Path(config_dir):
        return path
    return str(Path.cwd() / path)
