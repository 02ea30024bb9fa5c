"""What was found out about hosts, for people to read: hosts with the same findings stand together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from remote_runner.deploy.doctor import Diagnosis
from remote_runner.deploy.findings import Finding, Level, clock_text
from remote_runner.hosts.address import fold
from remote_runner.ui.text import count, harmless

_STYLES = {Level.OK: '32', Level.INFO: '36', Level.WARNING: '33', Level.ERROR: '1;31'}
_WORST_FIRST = list(reversed(Level))


def doctor_text(diagnoses: Sequence[Diagnosis], *, verbose: bool = False, color: bool = False) -> str:
    """A paragraph of lines for each group of hosts with the same findings.

    Args:
        diagnoses: one a host.
        verbose: whether what is well is told one by one, too.
        color: whether to colour it for a terminal (ECMA-48 SGR).
    """
    groups: dict[tuple[Finding, ...], list[Diagnosis]] = {}
    for diagnosis in diagnoses:
        groups.setdefault(tuple(f for f in diagnosis.findings if f.level is not Level.OK), []).append(diagnosis)
    lines: list[str] = []
    for findings, group in groups.items():
        lines.append(_heading(findings, group, color))
        for finding in sorted(findings, key=lambda finding: _WORST_FIRST.index(finding.level)):
            lines += _lines(finding, color)
        if verbose:
            lines += _well(group, color)
    return ''.join(f'{line}\n' for line in lines)


def _heading(findings: Sequence[Finding], group: Sequence[Diagnosis], color: bool) -> str:
    """`node[1-40]: all well (python 3.11.2, screen 4.9.0, clock +0.01 s)`."""
    numbers = Counter(finding.level for finding in findings)
    bad = [count(numbers[level], level.value) for level in (Level.ERROR, Level.WARNING) if numbers[level]]
    hosts = harmless(fold(diagnosis.host for diagnosis in group))
    state = ', '.join(bad) if bad else _styled('all well', Level.OK, color)
    facts = _summary(group)
    return f'{hosts}: {state} ({facts})' if facts else f'{hosts}: {state}'


def _summary(group: Sequence[Diagnosis]) -> str:
    """Versions, each one once, and the clock that differs most."""
    facts = [diagnosis.facts for diagnosis in group if diagnosis.facts is not None]
    if not facts:
        return ''
    pythons = '/'.join(dict.fromkeys(fact.python for fact in facts))
    screens = '/'.join(dict.fromkeys(fact.screen.version for fact in facts if fact.screen.version))
    offset = max((fact.clock_offset for fact in facts), key=abs)
    words = [f'python {pythons}', f'screen {screens}' if screens else '', clock_text(offset)]
    return harmless(', '.join(word for word in words if word))


def _well(group: Sequence[Diagnosis], color: bool) -> list[str]:
    """What is well; what does not hold for all hosts of the group names those for which it does."""
    told: dict[Finding, list[str]] = {}
    order: dict[str, None] = {}
    for diagnosis in group:
        for finding in diagnosis.findings:
            if finding.level is Level.OK:
                told.setdefault(finding, []).append(diagnosis.host)
                order.setdefault(finding.check)
    lines = []
    for check in order:
        for finding, hosts in told.items():
            if finding.check == check:
                [line] = _lines(finding, color)
                lines.append(line if len(hosts) == len(group) else f'{line} ({harmless(fold(hosts))})')
    return lines


def _lines(finding: Finding, color: bool) -> list[str]:
    """One line with the remedy, and below it what the host printed."""
    first, *printed = finding.what.split('\n')
    remedy = f' ({harmless(finding.remedy)})' if finding.remedy else ''
    level = _styled(finding.level.value, finding.level, color)
    what = harmless(first) if finding.level is not Level.OK else f'{finding.check}: {harmless(first)}'
    return [f'  {level}: {what}{remedy}', *(f'  {harmless(line)}' for line in printed)]


def _styled(text: str, level: Level, color: bool) -> str:
    return f'\x1b[{_STYLES[level]}m{text}\x1b[0m' if color else text
