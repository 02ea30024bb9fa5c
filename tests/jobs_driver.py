"""Shows jobs whose facts come from elsewhere: each line of the file named first is Python that is executed here.

`up(h1=4)`, `begin(3, 'h1', ago=5)`, `end(3, 'h1')`, `statistics.expect(10)`: what the main loop of jobs would do.
"""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack

from remote_runner.jobs.deliver import Delivery
from remote_runner.jobs.engines.base import HostDown, HostSilent, HostUp, Started
from remote_runner.jobs.formats import Format, Framed, JsonLines, Text
from remote_runner.jobs.policy import Cause, Outcome
from remote_runner.jobs.scheduler import Cancel, Start
from remote_runner.jobs.statistics import Statistics
from remote_runner.ui import log
from remote_runner.ui.jobs import JobsTerminal, stdout_sink
from tests.job_results import result


class Driver:
    """What a loop does with facts."""

    def __init__(self, form: Format, as_json: bool) -> None:
        self.now = 100.0
        self.statistics = Statistics(clock=lambda: self.now)
        self.terminal = JobsTerminal(
            self.statistics, as_json=as_json, more='remote_runner jobs failed j1', clock=lambda: self.now
        )
        self.delivery = Delivery(form, stdout_sink(), read=lambda number: result(number))

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.terminal.changed()

    def expect(self, total: int, **how: object) -> None:
        self.statistics.expect(total, **how)  # type: ignore[arg-type]
        self.terminal.changed()

    def hear(self, fact: HostUp | HostDown | HostSilent | Started) -> None:
        self.statistics.hear(fact)
        self.terminal.hear(fact)
        self.terminal.changed()

    def up(self, **slots: int) -> None:
        for name, number in slots.items():
            self.hear(HostUp(name, number))

    def begin(self, task: int, host: str, attempt: int = 1, ago: float = 0.0) -> None:
        self.statistics.ordered([Start(task, attempt, host)])
        self.hear(Started(task, attempt, host, ago))

    def end(self, task: int, host: str, stdout: bytes = b'', outcome: Outcome | None = None, **other: object) -> None:
        """It ends, and that is final."""
        found = result(task, stdout, outcome, host=host, **other)
        found = found._replace(ended=found.ended._replace(number=task))
        self.statistics.hear(found.ended)
        self.statistics.settled(task, found.ended.outcome)
        if outcome is not None:
            self.terminal.failed(found)
        self.delivery.give([found])
        self.terminal.changed()


def main(path: str, level: str = 'INFO', form: str = 'text', *options: str) -> int:
    log.configure(level)
    driver = Driver({'text': Text(), 'framed': Framed(), 'jsonl': JsonLines()}[form], '--json' in options)
    names = {'Cause': Cause, 'Outcome': Outcome, 'HostDown': HostDown, 'HostSilent': HostSilent, 'Cancel': Cancel}
    names |= {name: getattr(driver, name) for name in dir(driver) if not name.startswith('_')} | {'logging': logging}
    try:
        with open(path, encoding='utf-8') as lines, ExitStack() as stack:
            stack.enter_context(driver.terminal)
            stack.enter_context(driver.delivery)
            for line in lines:
                exec(compile(line, path, 'exec'), names)
    except KeyboardInterrupt:
        logging.error('interrupted')
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
