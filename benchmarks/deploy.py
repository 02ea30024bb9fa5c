"""The deploy: quit the session of an earlier run, bring 6 files to each host, start 2 programs in order, and see to it
that they run.
"""

from __future__ import annotations

import base64
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import peers
from benchmarks.measure import Contender, Series, memory, take_turns
from benchmarks.stage import OURS, RECIPES, Stage

#: The files of a host and their sizes in bytes; the first of each kind is its program, a shell script.
SIZES = {
    'server': 1_000,
    'server-data': 40_000,
    'server-model': 200_000,
    'client': 2_000,
    'client-data': 5_000,
    'client-model': 80_000,
}
PROGRAMS = ('server', 'client')
_SCRIPT = b'#!/bin/sh\nwhile sleep 3600; do :; done\n# '


@dataclass(frozen=True)
class Scene:
    """What a deploy begins with: the files are all new, or all there from the run before."""

    title: str
    new_files: bool


SCENES = (
    Scene('all files are new', new_files=True),
    Scene('no file has changed', new_files=False),
)


def measure(
    stage: Stage, scene: Scene, runs: int, wanted: Callable[[str], bool], say: Callable[[str], None]
) -> list[Series]:
    """All contenders that are wanted, in turns."""
    contenders = [contender for contender in _contenders(stage) if wanted(contender.name)]
    for contender in contenders:
        _write_files(contender)
    earlier: dict[str, set[tuple[str, int]]] = {}

    def before(contender: Contender) -> None:
        earlier[contender.name] = _running(stage, contender)
        if scene.new_files:
            _write_files(contender)

    return take_turns(
        contenders,
        runs,
        before=before,
        check=lambda contender: _fault(stage, contender, earlier[contender.name]),
        after=lambda contender: stage.close_masters(),
        say=say,
    )


def our_memory(stage: Stage) -> int:
    """The peak in bytes of our largest process, on all hosts of the stage."""
    [ours] = [contender for contender in _contenders(stage) if contender.name == 'ours']
    _write_files(ours)
    return memory(ours).largest


def _contenders(stage: Stage) -> list[Contender]:
    hosts = ','.join(stage.hosts)
    ssh_config = ['--data', f'ssh_config_file={stage.ssh_config}']
    stage.configure_ansible()
    ours = stage.contender('ours', OURS, '-F', stage.ssh_config, '--screen', _session('ours'), '-c', 'config.py')
    pyinfra = stage.contender('pyinfra', peers.program('pyinfra'), '-y', *ssh_config, hosts, 'deploy.py')
    ansible = stage.contender(
        'ansible', peers.program('ansible-playbook'), '-i', f'{hosts},', '-e', '@deploy.json', 'playbook.yml'
    )
    steps = _steps('plain')
    plain = stage.contender(
        'plain',
        str(RECIPES / 'plain/deploy.sh'),
        note='a shell script: ssh with ControlMaster, rsync, screen',
        more={
            'HOSTS': ' '.join(stage.hosts),
            'SSH_CONFIG': stage.ssh_config,
            'CONTROL': str(stage.control),
            **{name.upper(): value for name, value in steps.items()},
        },
    )
    contenders = [ours, pyinfra, ansible, plain]
    for contender in contenders:
        stage.write_json(contender, hosts=stage.hosts, files=list(SIZES), **_steps(contender.name))
    return contenders


def _session(name: str) -> str:
    return f'bench-{name}'


def _base(name: str) -> str:
    return f'/root/bench/{name}'


def _steps(name: str) -> dict[str, str]:
    """The shell commands that the peers are given; they look every 20 ms, and give up after 10 s."""
    session, base = _session(name), _base(name)

    def wait(condition: str) -> str:
        return f'timeout 10 sh -c {shlex.quote(f"until {condition}; do sleep 0.02; done")}'

    def runs(program: str) -> str:
        return f'pgrep -f "^/bin/sh {base}/{program}" >/dev/null'

    server, client = (f'-t {program} {base}/{program}' for program in PROGRAMS)
    gone = f'! screen -ls | grep -q "[.]{session}" && ! {runs("")}'
    return {
        'base': base,
        'quit': f'screen -S {session} -X quit >/dev/null; {wait(gone)}',
        'start_server': f'cd {base} && screen -dmS {session} {server} --number 0 && {wait(runs("server"))}',
        'start_client': f'screen -S {session} -X screen {client} --number 1 && {wait(runs("client"))}',
    }


def _write_files(contender: Contender) -> None:
    """New contents that cannot be compressed, so that nobody finds at the host what is to be sent."""
    folder = contender.folder / 'files'
    folder.mkdir(exist_ok=True)
    for name, size in SIZES.items():
        path = folder / name
        if name in PROGRAMS:
            path.write_bytes((_SCRIPT + base64.b64encode(os.urandom(size)))[: size - 1] + b'\n')
            path.chmod(0o755)
        else:
            path.write_bytes(os.urandom(size))


def _running(stage: Stage, contender: Contender) -> set[tuple[str, int]]:
    """The hosts and pids of the contender's programs, as seen from outside."""
    return {(host, pid) for host, pid, _ in _processes(stage, contender)}


def _processes(stage: Stage, contender: Contender) -> list[tuple[str, int, str]]:
    """Host, pid and program."""
    commands = {('/bin/sh', f'{_base(contender.name)}/{program}'): program for program in PROGRAMS}
    return [
        (host.name, process.pid, commands[argv])
        for host in stage.bed.hosts
        for process in host.processes()
        if (argv := tuple(process.argv[:2])) in commands
    ]


def _fault(stage: Stage, contender: Contender, earlier: set[tuple[str, int]]) -> str | None:
    """What is not as it should be after a run: each program once on each host, none from before, all files there."""
    found = _processes(stage, contender)
    old = [f'{program} on {host}' for host, pid, program in found if (host, pid) in earlier]
    if old:
        return f'runs on from before: {", ".join(old)}'
    there = sorted((host, program) for host, _, program in found)
    expected = sorted((host, program) for host in stage.hosts for program in PROGRAMS)
    if there != expected:
        wrong = [f'{there.count(one)} x {one[1]} on {one[0]}' for one in expected if there.count(one) != 1]
        return f'not started once each: {", ".join(wrong)}'
    return _differing(stage, contender)


def _differing(stage: Stage, contender: Contender) -> str | None:
    for name in SIZES:
        wanted = (contender.folder / 'files' / name).read_bytes()
        for host in stage.bed.hosts:
            there = host.path(f'{_base(contender.name)}/{name}')
            if not there.exists() or there.read_bytes() != wanted:
                return f'{name} on {host.name} is not the file that was to be sent'
    return None
