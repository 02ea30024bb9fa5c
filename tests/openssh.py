"""The OpenSSH client on the bed's ssh_config, for tests that need to see a host as any user sees it."""

from __future__ import annotations

import os
import subprocess
from subprocess import PIPE

from tests.testbed import Testbed

# The key exchange safe from quantum computers, which is the default, takes 70 ms more of each connection.
_SSH = ["ssh", "-o", "KexAlgorithms=curve25519-sha256"]


def ssh(
    bed: Testbed, host: str, command: str, *options: str, password: str | None = None
) -> subprocess.CompletedProcess[str]:
    """`ssh host command`. The password, if any, is typed in when ssh asks; otherwise the bed's key has to do."""
    argv = [*_SSH, "-F", str(bed.ssh_config), *options, "-o", "ConnectTimeout=10", host, command]
    environment = dict(os.environ)
    if password is None:
        argv[1:1] = ["-o", "BatchMode=yes"]
    else:
        answer = bed.directory / "answer"
        answer.write_text(f"#!/bin/sh\necho '{password}'\n")
        answer.chmod(0o700)
        environment |= {"SSH_ASKPASS": str(answer), "SSH_ASKPASS_REQUIRE": "force"}
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, env=environment, stdin=subprocess.DEVNULL)


def output(bed: Testbed, host: str, command: str, *options: str) -> str:
    """What the command prints, which must succeed."""
    done = ssh(bed, host, command, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Talk:
    """A connection that stays: an `ssh host cat` that has answered once."""

    def __init__(self, bed: Testbed, host: str, *options: str) -> None:
        argv = [*_SSH, "-F", str(bed.ssh_config), *options, host, "cat"]
        self._ssh = subprocess.Popen(argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)
        self.say("hello")
        assert self.hear() == "hello"

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self._ssh.kill()
        self._ssh.communicate()

    def say(self, line: str) -> None:
        assert self._ssh.stdin is not None
        print(line, file=self._ssh.stdin, flush=True)

    def hear(self) -> str:
        assert self._ssh.stdout is not None
        return self._ssh.stdout.readline().removesuffix("\n")

    def last_words(self) -> str:
        """What ssh says at its end, which must come by itself."""
        assert self._ssh.stderr is not None
        words = self._ssh.stderr.read()
        assert self._ssh.wait() == 255
        return words
