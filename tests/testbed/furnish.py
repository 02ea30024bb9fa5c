"""The files a host is made of: its private folders, its layer over this machine's /etc, and its table of mounts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.testbed.keys import Key
from tests.testbed.network import Network

# Private folders of a host and their modes. The first survive a boot, as on a disk.
KEPT = {"root": 0o700, "home": 0o755, "mnt": 0o755, "srv": 0o755, "var/tmp": 0o1777, "var/log": 0o755}
FRESH = {"run": 0o755, "tmp": 0o1777}  # /tmp last: it hides the bed's own folder, from which the others come
_RUN = {"run/sshd": 0o755, "run/screen": 0o1777, "run/lock": 0o1777, "run/user": 0o755, "run/testbed": 0o700}

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile /run/sshd.pid
PermitRootLogin yes
PasswordAuthentication yes
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
AllowAgentForwarding yes
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
"""


def furnish(directory: Path, name: str, hosts: dict[str, str], key: Key, authorized: str) -> None:
    """Lay out what host `name` keeps for life; `hosts` maps the names of all hosts of its bed to their addresses."""
    for folder, mode in KEPT.items():
        _make(directory / folder, mode)
    authorize(directory / "root", authorized)
    etc = directory / "etc"
    (etc / "ssh").mkdir(parents=True)
    (etc / "hostname").write_text(f"{name}\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{ip} {host}\n" for host, ip in hosts.items()))
    (etc / "profile").write_text(f"PATH={SEARCH_PATH}\nexport PATH\n")  # lean: this machine's may take long
    (etc / "bash.bashrc").write_text("")
    (etc / "ssh/sshd_config").write_text(_SSHD_CONFIG)
    write_private(etc / "ssh/ssh_host_ed25519_key", key.private)
    write_private(etc / "shadow", _without_passwords(Path("/etc/shadow").read_text()))
    (directory / "fstab").write_text(_fstab(directory))


def freshen(directory: Path, network: Network, number: int) -> None:
    """What a host has anew each time it boots."""
    for folder in [*FRESH, "etc.work"]:  # a volatile overlay is not mounted again with the work of a host that died
        shutil.rmtree(directory / folder, ignore_errors=True)
    (directory / "etc.work").mkdir()
    for folder, mode in (FRESH | _RUN).items():
        _make(directory / folder, mode)
    (directory / "run/testbed/addresses").write_text(network.host_commands(number))


def is_private(path: str) -> bool:
    """Whether an absolute path lies on the host's own disk, rather than in /etc or on this machine's."""
    return any(path == f"/{folder}" or path.startswith(f"/{folder}/") for folder in KEPT | FRESH)


def authorize(home: Path, public_key: str, uid: int = 0, gid: int = 0) -> None:
    """Let the holder of the key log in to the account of this home."""
    folder = home / ".ssh"
    folder.mkdir(mode=0o700)
    write_private(folder / "authorized_keys", public_key)
    for path in (folder, folder / "authorized_keys"):
        os.chown(path, uid, gid)


def _fstab(directory: Path) -> str:
    """fstab(5), mounted in this order.

    By their names mount(8) tells /proc and the like from the machine's. Not `volatile`, /etc would sync the machine's
    disk each time a host ends, which may take seconds.
    """
    binds = "".join(f"{directory}/{folder} /{folder} none bind 0 0\n" for folder in KEPT | FRESH)
    return (
        f"host-etc /etc overlay lowerdir=/etc,upperdir={directory}/etc,workdir={directory}/etc.work,volatile 0 0\n"
        "host-proc /proc proc nosuid,nodev,noexec 0 0\n"
        "host-pts /dev/pts devpts ptmxmode=666,mode=620,gid=5 0 0\n"
        "host-shm /dev/shm tmpfs mode=1777,nosuid,nodev 0 0\n"
        f"{binds}"
    )


def _without_passwords(shadow: str) -> str:
    """No password lets anyone in, yet no account is locked (`!`): without PAM sshd would refuse keys as well."""
    lines = [line.split(":") for line in shadow.splitlines()]
    return "".join(":".join([name, "*", *rest]) + "\n" for name, _, *rest in lines)


def _make(folder: Path, mode: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(mode)


def write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
