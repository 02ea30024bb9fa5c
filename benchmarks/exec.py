"""One command on 40 hosts: `hostname`, and its output from all of them."""

from __future__ import annotations

import re
from collections.abc import Callable

from benchmarks import peers
from benchmarks.measure import Contender, Series, take_turns
from benchmarks.stage import OURS, Stage

COMMAND = 'hostname'


def measure(stage: Stage, runs: int, wanted: Callable[[str], bool], say: Callable[[str], None]) -> list[Series]:
    """All contenders that are wanted, in turns."""
    return take_turns(
        [contender for contender in _contenders(stage) if wanted(contender.name)],
        runs,
        before=lambda contender: None,
        check=lambda contender: _fault(stage, contender),
        after=lambda contender: stage.close_masters(),
        say=say,
    )


def _contenders(stage: Stage) -> list[Contender]:
    count, hosts = len(stage.hosts), ','.join(stage.hosts)
    spaced, folded = ' '.join(stage.hosts), f'h[1-{count}]'
    ssh = f'-F {stage.ssh_config}'
    pyinfra, clush, ansible = (peers.program(name) for name in ('pyinfra', 'clush', 'ansible'))
    data = ['--data', f'ssh_config_file={stage.ssh_config}']
    stage.configure_ansible()
    return [
        stage.contender('ours', OURS, 'exec', '-F', stage.ssh_config, '-H', folded, '--', COMMAND),
        stage.contender('pyinfra', pyinfra, '-y', *data, hosts, 'exec', '--', COMMAND),
        stage.contender('clush', clush, '-o', ssh, '-w', folded, COMMAND),
        stage.contender('pssh', 'parallel-ssh', '-i', '-p', str(count), '-x', ssh, '-H', spaced, COMMAND),
        stage.contender('parallel', 'parallel', '--nonall', '-j0', '--ssh', f'ssh {ssh}', '-S', hosts, COMMAND),
        stage.contender('ansible', ansible, 'all', '-i', f'{hosts},', '-m', 'raw', '-a', COMMAND),
    ]


def _fault(stage: Stage, contender: Contender) -> str | None:
    """The host whose name is missing in the output."""
    lines = contender.log.read_text(errors='replace')
    missing = [host for host in stage.hosts if not re.search(rf'(?m)\b{host}\s*$', lines)]
    return f'no output of {", ".join(missing)}' if missing else None
