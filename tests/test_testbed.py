"""The test hosts themselves: each has what is its own, and each fault is what it claims to be."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.openssh import Talk, output, ssh
from tests.testbed import Testbed, TestbedError
from tests.testbed.process import wait_until

FreshBed = Callable[..., Testbed]

# What a host is


def test_hosts_answer_by_name_and_address_with_keys_that_are_known(bed: Testbed) -> None:
    for host in bed.hosts:
        assert output(bed, host.name, "hostname") == host.name
    trusting_the_known = ["-o", f"UserKnownHostsFile={bed.known_hosts}", "-o", "StrictHostKeyChecking=yes"]
    assert output(bed, bed["h3"].address, "hostname", "-i", str(bed.key), *trusting_the_known) == "h3"
    keys = {line.split()[2] for line in bed.known_hosts.read_text().splitlines()}
    assert len(keys) == len(bed.hosts)


def test_hosts_have_files_of_their_own(fresh_bed: FreshBed) -> None:
    bed = fresh_bed(2)
    bed["h1"].path("/root/note").write_text("of h1\n")
    output(bed, "h1", "echo of h1 >/tmp/note")
    assert output(bed, "h1", "cat note /tmp/note") == "of h1\nof h1"
    assert bed["h1"].path("/tmp/note").read_text() == "of h1\n"
    assert output(bed, "h2", "ls -A /root /home /tmp").split() == ["/home:", "/root:", ".ssh", "/tmp:"]


def test_hosts_cannot_change_what_is_not_theirs(bed: Testbed) -> None:
    assert ssh(bed, "h1", "touch /note /usr/bin/note /var/lib/note").stderr.count("Read-only file system") == 3
    with pytest.raises(TestbedError, match="h1: cannot mount on /usr/note: Read-only file system"):
        bed["h1"].tmpfs("/usr/note")


def test_devices_are_of_the_machine_and_stay(bed: Testbed) -> None:
    script = "echo gone >/dev/null && touch /dev/shm/note && rm /dev/shm/note; touch /dev/note"
    done = ssh(bed, "h1", script)
    assert done.stderr == "touch: cannot touch '/dev/note': Read-only file system\n"
    assert Path("/dev/null").is_char_device()


def test_hosts_have_processes_and_terminals_of_their_own(fresh_bed: FreshBed) -> None:
    bed = fresh_bed(2)
    with Talk(bed, "h1"):
        assert [process.argv[-1] for process in bed["h1"].processes()][-1] == "cat"
        assert bed["h2"].processes() == []
    assert output(bed, "h1", "tty", "-tt") == "/dev/pts/0"


def test_hosts_are_reached_through_each_other(bed: Testbed) -> None:
    assert output(bed, "h3", "echo $SSH_CLIENT", "-J", "h1").split()[0] == bed["h1"].address


def test_screen_and_python_are_those_of_the_system(bed: Testbed) -> None:
    assert output(bed, "h1", "command -v python3 screen").split() == ["/usr/bin/python3", "/usr/bin/screen"]
    assert output(bed, "h1", "screen -D -m -S s true; ls -d /run/screen/*") == "/run/screen/S-root"


def test_orphans_are_reaped_and_init_survives_what_they_do(fresh_bed: FreshBed) -> None:
    host = fresh_bed(1)["h1"]
    host.run(["sh", "-c", "sleep 0 & exec true"])
    wait_until(lambda: host.processes() == [], "the orphan to be reaped")
    host.run(["sh", "-c", "kill -9 -1"], check=False)
    wait_until(lambda: host.run(["pgrep", "sshd"], check=False).returncode == 1, "all to be killed")
    host.start_sshd()
    assert host.run(["hostname"]).stdout == b"h1\n"


# What can be done to it


def test_run(fresh_bed: FreshBed) -> None:
    host = fresh_bed(1)["h1"]
    assert host.run(["cat"], input=b"\0in").stdout == b"\0in"
    assert host.run(["sh", "-c", "pwd; echo $HOME; hostname"]).stdout == b"/root\n/root\nh1\n"
    assert host.run(["sh", "-c", "exit 3"], check=False).returncode == 3
    with pytest.raises(subprocess.CalledProcessError) as caught:
        host.run(["sh", "-c", "echo why >&2; exit 3"])
    assert caught.value.__notes__ == ["h1: why"]
    with pytest.raises(subprocess.TimeoutExpired):
        host.run(["sleep", "1000"], timeout=0.1)
    wait_until(lambda: host.processes() == [], "the command that took too long to be killed")


def test_processes(fresh_bed: FreshBed) -> None:
    host = fresh_bed(1)["h1"]
    host.run(["sh", "-c", "sleep 1001 >/dev/null 2>&1 &"])
    [process] = host.processes()
    assert process.argv == ["sleep", "1001"]
    assert process.ppid == 1
    host.run(["kill", str(process.pid)])
    wait_until(lambda: host.processes() == [], "the end of sleep")


def test_packets_vanish_while_cut(fresh_bed: FreshBed) -> None:
    bed = fresh_bed(2)
    bed["h1"].cut()
    assert ssh(bed, "h1", "true", "-o", "ConnectTimeout=1").stderr.endswith("Connection timed out\n")
    assert output(bed, "h2", "hostname") == "h2"
    bed["h1"].heal()
    assert output(bed, "h1", "hostname") == "h1"


def test_connections_survive_a_short_cut(fresh_bed: FreshBed) -> None:
    bed = fresh_bed(1)
    with Talk(bed, "h1") as talk:
        bed["h1"].cut()
        talk.say("during")
        bed["h1"].heal()
        assert talk.hear() == "during"


def test_a_killed_host_comes_back_with_what_it_keeps(fresh_bed: FreshBed) -> None:
    bed = fresh_bed(1)
    host = bed["h1"]
    host.add_user("alice")
    host.run(["touch", "/root/kept", "/home/alice/kept", "/tmp/lost", "/run/lost"])
    host.hide("screen")
    host.tmpfs("/mnt/small")

    host.kill()
    assert host.path("/root/kept").exists()
    with pytest.raises(TestbedError, match="h1 is off"):
        host.run(["true"])
    with pytest.raises(TestbedError, match="h1 is off"):
        host.cut()

    host.boot()
    assert output(bed, "h1", "ls -d kept /tmp/* /run/lost; true") == "kept"
    assert output(bed, "h1", "ls", "-l", "alice") == "kept"
    assert ssh(bed, "h1", "screen -v; findmnt /mnt/small").stderr.endswith("command not found\n")
    assert host.run(["findmnt", "/mnt/small"]).returncode == 0
    with pytest.raises(TestbedError, match="on already"):
        host.boot()


def test_a_killed_host_says_no_farewell(fresh_bed: FreshBed) -> None:
    bed = fresh_bed(1)
    with Talk(bed, "h1", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1") as talk:
        bed["h1"].kill()
        assert "not responding" in talk.last_words()


def test_sshd_stops_and_starts_with_other_options(fresh_bed: FreshBed) -> None:
    bed = fresh_bed(1)
    host = bed["h1"]
    with Talk(bed, "h1") as talk:
        host.stop_sshd()
        assert "refused" in ssh(bed, "h1", "true").stderr
        talk.say("still here")
        assert talk.hear() == "still here"
        host.start_sshd({"Banner": "/etc/hostname", "MaxSessions": 1})
        assert ssh(bed, "h1", "true").stderr == "h1\n"
        host.stop_sshd(sessions=True)
        assert "closed" in talk.last_words()
    with pytest.raises(TestbedError, match="stopped already"):
        host.stop_sshd()


@pytest.mark.parametrize("shell", ["bash", "dash", "fish", "ksh", "mksh", "tcsh", "zsh"])
def test_a_user_may_have_any_shell(bed: Testbed, shell: str) -> None:
    host = bed["h3"]
    home = host.add_user(f"user-{shell}", shell=f"/usr/bin/{shell}")
    assert output(bed, "h3", "pwd; echo $SHELL", "-l", f"user-{shell}").split() == [home, f"/usr/bin/{shell}"]
    assert host.run(["id", "-un"], user=f"user-{shell}").stdout.decode() == f"user-{shell}\n"


def test_shells_and_passwords_can_be_set(fresh_bed: FreshBed) -> None:
    bed = fresh_bed(2)
    bed["h1"].set_shell("/usr/bin/tcsh")
    assert output(bed, "h1", "echo $shell") == "/usr/bin/tcsh"
    assert output(bed, "h2", "echo $SHELL") == "/bin/bash"
    bed["h1"].add_user("bob", password="it's: long")
    by_password = ["-l", "bob", "-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1"]
    assert ssh(bed, "h1", "id -un", *by_password, password="wrong").returncode == 255
    bed["h1"].set_password("bob", "right one")
    assert ssh(bed, "h1", "id -un", *by_password, password="right one").stdout == "bob\n"


@pytest.mark.parametrize("shell", ["bash", "fish", "tcsh"])
def test_a_hidden_program_is_not_found(fresh_bed: FreshBed, shell: str) -> None:
    bed = fresh_bed(2)
    host = bed["h1"]
    host.set_shell(f"/usr/bin/{shell}")
    host.hide("python3")
    host.hide("screen")
    for program in ["python3 -V", "screen -v"]:
        assert re.search("command not found|unknown command", ssh(bed, "h1", program).stderr, re.IGNORECASE)
    assert output(bed, "h2", "python3 -V; screen -v").startswith("Python 3")
    host.unhide("python3")
    assert output(bed, "h1", "python3 -V").startswith("Python 3")
    assert ssh(bed, "h1", "screen -v").returncode != 0


def test_all_versions_of_a_hidden_program_are_gone(fresh_bed: FreshBed) -> None:
    host = fresh_bed(1)["h1"]
    every = "ls /usr/bin/python3 /usr/bin/python3.[0-9]* /usr/local/bin/python3* 2>/dev/null; true"
    assert host.run(["sh", "-c", every]).stdout
    host.hide("python3")
    assert host.run(["sh", "-c", every]).stdout == b""
    assert host.run(["sh", "-c", "python3"], check=False).returncode == 127


def test_hiding_does_not_disturb_what_runs(fresh_bed: FreshBed) -> None:
    host = fresh_bed(1)["h1"]
    host.run(["sh", "-c", "python3 -c 'import time; time.sleep(1002)' >/dev/null 2>&1 &"])
    host.hide("python3")
    host.unhide("python3")
    [process] = host.processes()
    assert process.argv[0] == "python3"
    host.run(["kill", str(process.pid)])
    wait_until(lambda: host.processes() == [], "the end of python3")


def test_a_small_disk_fills_up(fresh_bed: FreshBed) -> None:
    bed = fresh_bed(1)
    bed["h1"].tmpfs("/root/small", size="64k")
    assert "No space left on device" in ssh(bed, "h1", "head -c 100k /dev/zero >small/file").stderr
    assert bed["h1"].path("/root/small/file").stat().st_size == 64 * 1024


def test_a_shared_folder_is_the_same_in_all_hosts(fresh_bed: FreshBed, tmp_path: Path) -> None:
    bed = fresh_bed(2)
    for host in bed.hosts:
        host.share("/srv/shared", tmp_path)
        host.share("/root/shared", tmp_path)
    bed["h1"].run(["sh", "-c", "echo from h1 >/srv/shared/note"])
    assert output(bed, "h2", "cat shared/note") == "from h1"
    assert (tmp_path / "note").read_text() == "from h1\n"
    assert bed["h2"].path("/root/shared/note").samefile(tmp_path / "note")
    with pytest.raises(TestbedError, match=r"cannot share .*nowhere.*No such file"):
        bed["h1"].share("/srv/nowhere", tmp_path / "nowhere")


def test_a_file_may_stand_for_one_of_the_kernel(fresh_bed: FreshBed, tmp_path: Path) -> None:
    bed = fresh_bed(1)
    (tmp_path / "loadavg").write_text("7.00 7.00 7.00 1/1 1\n")
    bed["h1"].share("/proc/loadavg", tmp_path / "loadavg")
    assert "load average: 7.00" in output(bed, "h1", "uptime")
