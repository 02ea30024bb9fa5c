"""The lines of ssh_config files, as they are, and where these files are. Quick to import."""

from __future__ import annotations

import glob
import os
import pwd
from collections.abc import Iterable, Iterator
from pathlib import Path

from remote_runner.errors import HostError

_DEPTH = 16  # of Include; the same as OpenSSH's
_SYSTEM = Path('/etc/ssh')


def home() -> str:
    """The home that ssh uses: that of the passwd entry, whatever $HOME says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return os.environ.get('HOME', '/')


def config_files(config_file: str | None) -> list[Path]:
    """The files that ssh reads, in order; `config_file` is that of `ssh -F`."""
    if config_file is not None:
        return [Path(config_file)] if config_file != 'none' else []
    return [Path(home(), '.ssh', 'config'), _SYSTEM / 'ssh_config']


def lines(files: Iterable[Path], *, must_exist: bool) -> Iterator[str]:
    """The lines of these files, with those of included files in place.

    Raises:
        HostError: a file cannot be read, or does not exist although it must.
    """
    for file in files:
        yield from _lines(file, must_exist, 0)


def _lines(file: Path, must_exist: bool, depth: int) -> Iterator[str]:
    try:
        text = file.read_text(errors='surrogateescape')
    except FileNotFoundError:
        if must_exist:
            raise HostError(f'there is no ssh_config {file}') from None
        return
    except OSError as error:
        raise HostError(f'the ssh_config {file} cannot be read: {error.strerror}') from error
    for line in text.splitlines():
        keyword, value = split(line.strip())
        if keyword != 'include' or depth == _DEPTH:
            yield line
            continue
        for pattern in value.split():
            base = _SYSTEM if file.is_relative_to(_SYSTEM) else Path(home(), '.ssh')
            for included in sorted(glob.glob(str(base / pattern.replace('~', home(), 1)))):  # noqa: PTH207
                yield from _lines(Path(included), False, depth + 1)


def split(line: str) -> tuple[str, str]:
    """Keyword (in lower case) and value of a line without spaces around it: `Keyword value` or `Keyword=value`."""
    end = next((index for index, letter in enumerate(line) if letter in ' \t='), len(line))
    rest = line[end:].strip()
    return line[:end].lower(), rest.removeprefix('=').strip()
