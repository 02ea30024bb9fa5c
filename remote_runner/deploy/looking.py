"""Finding out what a copy would do, and doing nothing of it: `remote_runner copy --dry-run`.

    looker = Looker(CopyOptions(), events)
    Copying(wanted, looker, events).copy(addresses, connector)
    looker.found
"""

from __future__ import annotations

from remote_runner.deploy.bring import Bringer
from remote_runner.deploy.difference import HostDifference, find_difference
from remote_runner.events import Events
from remote_runner.files.ahead import Gathering
from remote_runner.files.manifest import Manifest
from remote_runner.files.options import CopyOptions
from remote_runner.hosts.host import Host


class Looker(Bringer):
    """A `Bringer` that asks hosts what they have, and brings nothing. Thread-safe.

    Of hosts that share a folder each is told what it lacks: who would bring it is only found out by marks.

    Attributes:
        found: what it would do, by host.
    """

    def __init__(self, options: CopyOptions, events: Events) -> None:
        super().__init__(options, events)
        self.found: dict[str, HostDifference] = {}

    def bring(self, host: Host, wanted: Manifest | Gathering) -> None:
        """Compare; raises as that of `Bringer` does where that would not begin."""
        manifest, asking = self.gathered(host, wanted)
        difference = find_difference(host, manifest, self.local, self.options, asking)
        self.found[host.name] = HostDifference.of(host.name, manifest, difference, deletes=self.options.delete)
