"""The programs that we compare with: those of PyPI in a venv beside this file, the others from Debian."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / '.peers'

#: Newest of these when the venv is made; remove the folder .peers to have them anew.
FROM_PYPI = ('pyinfra>=3.10,<4', 'ansible-core', 'clustershell', 'distributed', 'hyperqueue')
_OF_TASKS = ('distributed', 'hyperqueue')
FROM_DEBIAN = ('parallel', 'pssh', 'rsync', 'gcc', 'libc6-dev', 'make')


def install() -> None:
    """Install what is missing; ends the program with the output of what failed."""
    if not (VENV / 'bin/pip').exists():
        _do(sys.executable, '-m', 'venv', '--clear', str(VENV))
    _do(str(VENV / 'bin/pip'), 'install', '--disable-pip-version-check', *FROM_PYPI)
    missing = [package for package in FROM_DEBIAN if not debian_version(package)]
    if missing:
        _do('apt-get', '--yes', '--quiet', 'update')
        _do('apt-get', '--yes', '--quiet', 'install', '--no-install-recommends', *missing)


def program(name: str) -> str:
    """The path of a peer's program."""
    return str(VENV / 'bin' / name)


def versions() -> dict[str, str]:
    """Everything that takes part, and its version."""
    names = 'pyinfra', 'ansible-core', 'ClusterShell', 'paramiko', 'gevent', *_OF_TASKS
    theirs = _python_packages(VENV / 'bin/python', *names)
    ours = _python_packages(Path(sys.executable), 'remote_runner', 'paramiko', 'rich')
    git = _output('git', '-C', str(HERE), 'describe', '--always', '--dirty')
    return {
        'remote_runner': f'{ours.pop("remote_runner")} ({git}), with {_listed(ours)}',
        'pyinfra': f'{theirs.pop("pyinfra")}, with paramiko {theirs.pop("paramiko")}, gevent {theirs.pop("gevent")}',
        'ansible-core': theirs.pop('ansible-core'),
        'ClusterShell (clush)': theirs.pop('ClusterShell'),
        **{name: theirs.pop(name) for name in _OF_TASKS},
        'pssh (parallel-ssh)': debian_version('pssh'),
        'GNU parallel': debian_version('parallel'),
        'Python': sys.version.split()[0] + ', for ours and for the peers of PyPI',
        'OpenSSH': _output('ssh', '-V').split(',')[0].removeprefix('OpenSSH_'),
        'screen': debian_version('screen'),
        'rsync': debian_version('rsync'),
        'gcc, make': f'{debian_version("gcc")}, {debian_version("make")}',
    }


def debian_version(package: str) -> str:
    """The version of an installed Debian package; empty when it is not installed."""
    if not shutil.which('dpkg-query'):
        return ''
    shown = _output('dpkg-query', '--show', '--showformat', '${db:Status-Status} ${Version}', package)
    found = re.match(r'installed (\S+)', shown)
    return found[1] if found else ''


def _do(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f'{done.stdout}\n{" ".join(command)}: exit status {done.returncode}')


def _python_packages(python: Path, *names: str) -> dict[str, str]:
    code = 'import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))'
    return dict(zip(names, _output(str(python), '-c', code, *names).split(), strict=True))


def _listed(packages: dict[str, str]) -> str:
    return ', '.join(f'{name} {version}' for name, version in packages.items())


def _output(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.strip()


if __name__ == '__main__':
    install()
    for name, version in versions().items():
        print(f'{name:<22} {version}')
