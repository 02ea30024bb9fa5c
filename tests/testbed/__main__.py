"""Beds from the command line: `python -m tests.testbed up 4`, then `ssh -F … h2`, `… cut 2`, `… down`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

from tests.testbed import registry
from tests.testbed.bed import Testbed
from tests.testbed.errors import TestbedError
from tests.testbed.host import TestHost


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        status: int = options.run(options)
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    return status


def _up(options: argparse.Namespace) -> int:
    bed = Testbed.up(options.count, name=options.name)
    bed.disown()
    first, last = bed.hosts[0], bed.hosts[-1]
    print(f"{bed.name} is up: {first.name} ({first.address}) to {last.name} ({last.address}), {bed.ssh_config}")
    print(f"    ssh -F {bed.ssh_config} {last.name}")
    return 0


def _down(options: argparse.Namespace) -> int:
    if options.all:
        print(*(f"{name} is removed, its owner is gone" for name in registry.remove_stale()), sep="\n", end="")
        names = _disowned()
    else:
        names = [_name(options)]
    for name in names:
        Testbed.open(name).down()
        print(f"{name} is down")
    return 0


def _list(options: argparse.Namespace) -> int:
    for claim in registry.claims():
        if claim.is_stale:
            state = "stale"
        elif not claim.is_here:
            state = "in other namespaces"
        else:
            state = f"of process {claim.owner.pid}" if claim.owner else "until taken down"
        config = Testbed.open(claim.name).ssh_config
        print(f"{claim.name:12} {claim.count:3} hosts  {claim.network.subnet!s:15} {state:20} {config}")
    return 0


def _do(method: Callable[[TestHost], None]) -> Callable[[argparse.Namespace], int]:
    """The command that does this to one host."""

    def command(options: argparse.Namespace) -> int:
        method(_host(options))
        return 0

    return command


def _exec(options: argparse.Namespace) -> int:
    command, environment = _host(options).entry(options.command, options.user)
    return subprocess.run(command, env=environment).returncode


def _host(options: argparse.Namespace) -> TestHost:
    bed = Testbed.open(_name(options))
    try:
        return bed[f"h{options.host.removeprefix('h')}"]
    except KeyError:
        raise TestbedError(f"{bed.name} has no host {options.host!r}") from None


def _name(options: argparse.Namespace) -> str:
    """The bed that is meant: the one named, or the only one there is."""
    if options.name:
        return str(options.name)
    names = _disowned()
    if len(names) == 1:
        return names[0]
    raise TestbedError(f"which bed: {', '.join(names)}?" if names else "no bed is up")


def _disowned() -> list[str]:
    """The beds brought up from the command line; those of running tests are left alone unless named."""
    return [claim.name for claim in registry.claims() if claim.owner is None and claim.is_here]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.testbed", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="bring up a bed, which stays until it is taken down")
    up.add_argument("count", type=int, nargs="?", default=3, help="number of hosts (default: 3)")
    up.add_argument("--name", help="name of the bed (default: bed and a number)")
    up.set_defaults(run=_up)

    down = commands.add_parser("down", help="end and remove a bed")
    down.add_argument("name", nargs="?", help="name of the bed; may be left out when there is one only")
    down.add_argument("--all", action="store_true", help="all beds of the command line, and those of dead owners")
    down.set_defaults(run=_down)

    commands.add_parser("list", help="show the beds of this machine").set_defaults(run=_list)

    for word, method, meaning in [
        ("cut", TestHost.cut, "pull a host's cable: packets vanish"),
        ("heal", TestHost.heal, "plug it in again"),
        ("kill", TestHost.kill, "pull a host's plug: all its processes end"),
        ("boot", TestHost.boot, "switch a killed host on again"),
    ]:
        command = commands.add_parser(word, help=meaning)
        _add_host(command)
        command.set_defaults(run=_do(method))

    run = commands.add_parser("exec", help="run a command in a host, not over SSH")
    _add_host(run)
    run.add_argument("--user", help="as this user (default: root)")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help="the command and its arguments")
    run.set_defaults(run=_exec)
    return parser


def _add_host(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="name of the bed; may be left out when there is one only")
    parser.add_argument("host", help="2 or h2")


if __name__ == "__main__":
    sys.exit(main())
