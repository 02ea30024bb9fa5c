"""What the control groups that hold this process allow it: cgroups(7), both versions.

A group is allowed no more than those above it, so the least of all counts. What a container cannot see of them does not
count.
"""

import os

from remote_runner.agent.records import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Tuple

#: Where the groups are mounted: version 2 alone, or beside version 1, which has a folder a controller.
ROOT = '/sys/fs/cgroup'
OWN = '/proc/self/cgroup'


class Limits:
    """The limits of this process; where they are is looked up once.

    Args:
        root: where the groups are mounted.
        own: the file that names those of this process.
    """

    def __init__(self, root: str = ROOT, own: str = OWN) -> None:
        #: The folders that may hold limits, by controller; that of version 2 is ''.
        self._folders: "Dict[str, List[str]]" = {'cpu': [], 'memory': [], '': []}
        for line in _text(own).split('\n'):
            _, _, rest = line.partition(':')
            controllers, _, path = rest.partition(':')
            for controller in controllers.split(','):
                if controller not in self._folders or not path.startswith('/'):
                    continue
                if controller:
                    top = os.path.join(root, controller)
                else:
                    top = root if os.path.exists(root + '/cgroup.controllers') else root + '/unified'
                self._folders[controller] = _levels(top, path)

    def cores(self) -> "Optional[float]":
        """How many processors may be used at a time; None: there is no limit."""
        found = []
        for folder in self._folders['']:
            quota, _, period = _text(folder + '/cpu.max').partition(' ')
            found.append((_number(quota), _number(period)))
        for folder in self._folders['cpu']:
            found.append((_number(_text(folder + '/cpu.cfs_quota_us')), _number(_text(folder + '/cpu.cfs_period_us'))))
        return min((quota / period for quota, period in found if quota and period), default=None)

    def memory(self) -> "Optional[Tuple[int, int]]":
        """Bytes that may be used in all, and those of them that are left; None: there is no limit."""
        found = []
        for folder in self._folders['']:
            found.append(_memory(folder, 'memory.max', 'memory.current', 'inactive_file'))
        for folder in self._folders['memory']:
            found.append(_memory(folder, 'memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'))
        limits = [each for each in found if each is not None]
        return (min(limit for limit, _ in limits), min(left for _, left in limits)) if limits else None


def _memory(folder: str, limit: str, used: str, cached: str) -> "Optional[Tuple[int, int]]":
    """Limit and rest of one group; the cache of files that nobody uses is given away when memory is needed."""
    most, now = _number(_text('{}/{}'.format(folder, limit))), _number(_text('{}/{}'.format(folder, used)))
    if most is None or now is None or most >= 1 << 62:  # version 1 has no word for no limit
        return None
    for line in _text(folder + '/memory.stat').split('\n'):
        name, _, value = line.partition(' ')
        if name == cached:
            now -= _number(value) or 0
    return most, most - max(0, now)


def _levels(top: str, path: str) -> "List[str]":
    """The folder of a group, and those above it, as far as they can be seen."""
    names = [name for name in path.split('/') if name and name != '..']
    folders = [os.path.join(top, *names[:count]) for count in range(len(names), -1, -1)]
    return [folder for folder in folders if os.path.isdir(folder)]


def _number(text: str) -> "Optional[int]":
    text = text.strip()
    return int(text) if text.isdigit() else None


def _text(path: str) -> str:
    """What a file says; nothing where it is not there: not every group has every file."""
    try:
        return read_file(path).decode('ascii', 'replace')
    except OSError:
        return ''
