"""Folders on this host: those of components, and temporary ones."""

import os

from remote_runner.agent.request import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List

    from remote_runner.agent.request import Request

#: What the names of temporary folders begin with, and the random bytes that they end with in hexadecimal.
FOLDER = 'remote_runner-'
RANDOM = 5


def expand(path: str) -> str:
    """An absolute path: `~` is the home, a relative path is relative to it (as the login shell starts there)."""
    return os.path.normpath(os.path.join(os.path.expanduser('~'), os.path.expanduser(path)))


def prepare(request: "Request") -> "Dict[str, object]":
    """Operation `prepare`: the absolute base_dir of each of `components`, in their order.

    Each is [name, base_dir, user]. A base_dir of None becomes a fresh temporary folder, into which the user is let.
    With `create`, a base_dir that is missing is created where that is possible; where not, the start of the component
    (or its first file) says why. The result lists the folders, and those of them (and above them) that were missing.
    """
    folders: "List[str]" = []
    created: "List[str]" = []
    temporary: "List[str]" = []
    try:
        for name, base_dir, user in request.header['components']:
            if base_dir is None:
                folder = _temporary_folder(name)
                temporary.append(folder)
                if user is not None:
                    from remote_runner.agent.become import let_in

                    let_in(folder, user)
            else:
                folder = expand(base_dir)
                try:
                    created += make_folders(folder) if request.header['create'] else []
                except OSError:
                    pass  # entering it will fail with the same reason, which is then the component's
            folders.append(folder)
    except (Failure, OSError):
        for folder in (*temporary, *reversed(created)):  # nobody hears of them, so nobody else would remove them
            try:
                os.rmdir(folder)
            except OSError:
                continue  # something has come into it meanwhile
        raise
    return {'base_dirs': folders, 'created': created}


def _temporary_folder(name: str) -> str:
    """A new folder under $TMPDIR or /tmp, only for us, recognizable by the component's name."""
    safe = ''.join(c if (c.isalnum() and ord(c) < 128) or c in '-_.' else '_' for c in name)[:64]
    while True:
        folder = os.path.join(temporary_root(), '{}{}-{}'.format(FOLDER, safe, os.urandom(RANDOM).hex()))
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            continue
        return folder


def temporary_root() -> str:
    """Where temporary folders are made."""
    return os.environ.get('TMPDIR') or '/tmp'


def is_temporary(name: str) -> bool:
    """Whether a folder of this name may be one that `prepare` made."""
    first, _, last = name.rpartition('-')
    return first.startswith(FOLDER) and len(first) > len(FOLDER) and len(last) == 2 * RANDOM and _is_hex(last)


def _is_hex(text: str) -> bool:
    return all(c in '0123456789abcdef' for c in text)


def make_folders(folder: str) -> "List[str]":
    """`mkdir -p`; those that had to be made, outermost first."""
    made: "List[str]" = []
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for path in reversed(missing):
        try:
            os.mkdir(path)
            made.append(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
    return made


def are_folders(request: "Request") -> "Dict[str, object]":
    """Operation `are_folders`: which of `paths` are folders, or links to some."""
    return {'folders': [os.path.isdir(expand(path)) for path in request.header['paths']]}


def remove(request: "Request") -> "Dict[str, object]":
    """Operation `remove`: remove the `temporary` folders of components that never ran, with all that is in them, and
    those of `folders` (made by this run, outermost first) that are empty; others hold something that was wanted.
    """
    import shutil

    for folder in request.header['temporary']:
        shutil.rmtree(folder)
    for folder in reversed(request.header['folders']):
        try:
            os.rmdir(folder)
        except OSError:
            continue
    return {}
