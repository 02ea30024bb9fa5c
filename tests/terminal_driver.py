"""Shows a run whose events come from elsewhere: each line of the file named first is Python that is executed here.

`emit(HostConnecting(host='h1'))`, `logging.warning('...')`, `print('...')`: what the process under test would do.
"""

from __future__ import annotations

import logging
import sys

from remote_runner import events
from remote_runner.ui import log
from remote_runner.ui.terminal import Terminal


def main(path: str, level: str = 'INFO') -> int:
    log.configure(level)
    stream = events.Events()
    try:
        with open(path, encoding='utf-8') as lines, Terminal() as terminal:
            stream.listen(terminal)
            for line in lines:
                names = {**vars(events), 'emit': stream.emit, 'logging': logging, 'terminal': terminal, 'sys': sys}
                # Compiled first: after a KeyboardInterrupt in text that exec runs, `python -m` ends by SIGINT.
                exec(compile(line, path, 'exec'), names)
    except KeyboardInterrupt:
        logging.error('interrupted')
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
