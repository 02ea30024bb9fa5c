"""What the daemon and those who ask it say to each other, and where they meet.

Over the daemon's unix socket go the frames of `wire/frames.py`, as between a master and an agent: requests with ids,
answers, parts with credit. The daemon answers these itself:

* `{"op": "hosts"}`: `{"hosts": [...]}`, of every host of the cluster: `name`, `state` (`up`, `connecting`, `lost`),
  `error` (text, where it is not up), `report` (the fields of `choose.Report`), `age` (seconds of the report),
  `virtual`, `score`, `load_weight`, `memory_weight`, `identity`.
* `{"op": "best", "wanted": {...}, "peek": false, "count": 1}`: `{"hosts": [name, ...]}` by `choose.best`, `wanted` as
  `choose.Wanted`; each adds virtual load, unless `peek`.
* `{"op": "ping"}`: `{"pid": ..., "version": ...}`.

And it passes one on:

* `{"op": "run", "wanted": {...}, ...}` goes to the best host's agent with all its fields but `wanted` (operation `run`,
  see `agent/command.py`). First comes `{"id": ..., "host": name}`, then every frame of either side with that id is
  passed on as it is: parts, credit, `cancel`, the answer. A connection that ends cancels what it has under way.

Errors are `{"id": ..., "error": {"what": ..., "kind": ..., "host": ..., "remedy": ...}}`.

Light to import: every command of dsh does.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

#: The environment variable that names another socket.
SOCKET = 'RR_DSHD_SOCKET'


def socket_path(folder: "Optional[str]" = None) -> str:
    """Where the daemon of this user listens: in `folder`, else the private folder (0700) under /tmp."""
    return os.environ.get(SOCKET) or os.path.join(folder or f'/tmp/remote_runner-{os.getuid()}', 'dshd')
