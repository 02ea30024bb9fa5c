"""The end of an agent, whatever ends it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from remote_runner.agent.main import Agent


def test_an_agent_that_is_dismissed_while_it_leaves_cleans_up_all_the_same(tmp_path: Path) -> None:
    """Its connection breaks, and the agent of the next one says the same by TERM: both at once, as a rule."""
    read, write = os.pipe()
    agent = Agent(read, write)
    mark = tmp_path / 'mark'
    mark.touch()
    agent.temporary.append(str(mark))

    class Work:
        def is_alive(self) -> bool:
            return True

        def join(self, timeout: float = -1) -> None:
            signal.raise_signal(signal.SIGTERM)

    agent._threads.append(Work())  # type: ignore[arg-type]
    before = signal.signal(signal.SIGTERM, agent.dismiss)
    try:
        agent.farewell()
    finally:
        signal.signal(signal.SIGTERM, before)
        os.close(read)
        os.close(write)
    assert not mark.exists()
