"""The network of a bed: a bridge with an address for this machine, and a cable (veth pair) to each host.

Everything about it follows from the bed's number. All links of a bed are in one link group: one command removes them.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.testbed.errors import TestbedError

NUMBERS = range(512)
MOST_HOSTS = 250
_FIRST_GROUP = 7700
# No IPv6 addresses: 200 hosts announcing theirs to each other would be 40,000 packets.
_QUIET = "addrgenmode none" if Path("/proc/sys/net/ipv6").exists() else ""


@dataclass(frozen=True)
class Network:
    """The names and addresses of bed `number`: host 7 of bed 3 is 10.77.3.7, at the end of link rrbed3h7."""

    number: int

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(f"10.{77 + self.number // 256}.{self.number % 256}.0/24")

    @property
    def bridge(self) -> str:
        return f"rrbed{self.number}"

    @property
    def bridge_address(self) -> str:
        return str(self.subnet[254])

    @property
    def exists(self) -> bool:
        try:
            socket.if_nametoindex(self.bridge)
        except OSError:
            return False
        return True

    def link(self, host: int) -> str:
        return f"{self.bridge}h{host}"

    def address(self, host: int) -> str:
        return str(self.subnet[host])

    def create(self) -> None:
        ip_batch(
            [
                # Without an address of its own the bridge takes that of a port, and changes it as hosts come and go.
                f"link add {self.bridge} group {self._group} address {self._mac(254)} type bridge mcast_snooping 0",
                f"link set {self.bridge} {_QUIET} up",
                f"address add {self.bridge_address}/24 dev {self.bridge}",
            ]
        )

    def cable(self, host: int, init: int) -> str:
        """The ip command that puts eth0 into the namespace of process `init`; the end at the bridge stays down."""
        link, mac = self.link(host), self._mac(host)
        return (
            f"link add {link} group {self._group} master {self.bridge} "
            f"type veth peer name eth0 address {mac} netns {init}"
        )

    def plug_in(self, host: int) -> list[str]:
        """The ip commands that let packets pass, once the host's eth0 is up.

        Later than eth0, because packets then pass at once; the other way round the kernel may take a second. The
        neighbour entries save looking for the host, and packets to one that is cut or off vanish without an error.
        """
        return [
            f"link set {self.link(host)} {_QUIET} up",
            f"neighbour replace {self.address(host)} lladdr {self._mac(host)} dev {self.bridge} nud permanent",
        ]

    def cut(self, host: int) -> str:
        """The ip command that pulls the cable from the bridge. A link set down would take a second to come up again."""
        return f"link set {self.link(host)} nomaster"

    def heal(self, host: int) -> str:
        """The ip command that plugs it in again."""
        return f"link set {self.link(host)} master {self.bridge}"

    def host_commands(self, host: int) -> str:
        """What a host does with its end of the cable, for `ip -batch`."""
        return (
            "link set lo up\n"
            f"link set eth0 {_QUIET} up\n"
            f"address add {self.address(host)}/24 dev eth0\n"
            f"neighbour add {self.bridge_address} lladdr {self._mac(254)} dev eth0 nud permanent\n"
        )

    def remove(self) -> None:
        if self.exists:
            ip_batch([f"link delete group {self._group}"])

    @property
    def _group(self) -> int:
        return _FIRST_GROUP + self.number

    def _mac(self, host: int) -> str:
        return f"02:77:00:{self.number // 256:02x}:{self.number % 256:02x}:{host:02x}"


def ip_batch(commands: Iterable[str]) -> None:
    """Run many ip(8) commands in one process. Raises TestbedError with what ip said."""
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), capture_output=True, text=True)
    if done.returncode:
        raise TestbedError(f"ip: {done.stderr.strip()}")


def routed_networks() -> list[ipaddress.IPv4Network]:
    """The networks this machine has routes to, the default route aside."""
    routes = json.loads(subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, check=True).stdout or "[]")
    return [ipaddress.IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]
