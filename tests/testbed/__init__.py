"""Real test hosts on one machine, for the tests, the benchmarks and the demo.

Each host has its own network, mount, PID, UTS and IPC namespaces, its own /root, /home, /tmp, /run and /etc, and its
own sshd with its own host key; the hosts of a bed share a bridge, on which this machine has an address too. Faults are
made for real: `TestHost.cut` pulls the cable, `TestHost.kill` pulls the plug. Nothing of remote_runner may be imported
here: a bed knows hosts, not what is deployed on them.

    with Testbed(count=3) as bed:
        subprocess.run(["ssh", "-F", bed.ssh_config, "h2", "hostname"], check=True)

The same from the command line: `python -m tests.testbed up 3`. Root is needed, and what `scripts/testbed-packages`
installs. Inside of the hosts /usr and the rest of the file system are this machine's, read-only.
"""

from tests.testbed.bed import Testbed
from tests.testbed.errors import TestbedError
from tests.testbed.host import HostProcess, TestHost

__all__ = ["HostProcess", "TestHost", "Testbed", "TestbedError"]
