"""What the daemon and those who ask it say to each other, and where they meet.

Over the daemon's unix socket go the frames of `wire/frames.py`, as between a master and an agent: requests with ids,
answers, parts with credit. The daemon answers these itself:

* `{"op": "hosts"}`: `{"hosts": [...]}`, of every host of the cluster: `name`, `state` (`up`, `connecting`, `lost`),
  `error` (text, where it is not up), `report` (the fields of `choose.Report`), `age` (seconds of the report),
  `virtual`, `ended`, `score`, `load_weight`, `memory_weight`, `identity`. And `version`, ours.
* `{"op": "best", "wanted": {...}, "peek": false, "count": 1}`: `{"hosts": [name, ...]}` by `choose.best`, `wanted` as
  `choose.Wanted`; each adds virtual load, unless `peek`.
* `{"op": "ping"}`: `{"pid": ..., "version": ..., "uptime": ..., "runs": ...}`: seconds, and commands under way; of a
  daemon also `socket`, `cluster`, `log` and `ports`.

And it passes one on:

* `{"op": "run", "wanted": {...}, ...}` goes to the best host's agent with all its fields but `wanted` (operation `run`,
  see `agent/command.py`). First comes `{"id": ..., "host": name}`, then every frame of either side with that id is
  passed on as it is: parts, credit, `cancel`, the answer. A connection that ends cancels what it has under way.

Errors are `{"id": ..., "error": {"what": ..., "kind": ..., "host": ..., "remedy": ..., "status": ...}}`; `status` is
what a command that asked ends with, 1 if it is not there.

Light to import: every command of dsh does.
"""

import os

#: The environment variable that names another socket.
SOCKET = 'RR_DSHD_SOCKET'
FOLDER = '/tmp/remote_runner'  # noqa: S108  # and the user id; as `agent/screen.py` has it, and as carefully made


def socket_path() -> str:
    """Where the daemon of this user listens: in the private folder (0700) of sockets, or where `SOCKET` says."""
    return os.environ.get(SOCKET) or f'{FOLDER}-{os.getuid()}/dshd'
