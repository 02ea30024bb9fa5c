"""Sweeps for tests: whole ones, of which a test says what it is about."""

from __future__ import annotations

from typing import Any

from remote_runner.config import util
from remote_runner.config.sweep import Sweep, tasks


def sweep(**attributes: Any) -> Sweep:
    given = {'name': 's', 'hosts': ['h'], 'parameters': util.product(rate=[1, 10]), 'command': 'echo {rate}'}
    return Sweep(**{**given, **attributes})


def faults_of(**attributes: Any) -> list[str]:
    return sweep(**attributes).read()[1]


def commands(**attributes: Any) -> list[str]:
    return [task.command for task in tasks(sweep(**attributes))]
