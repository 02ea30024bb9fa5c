"""What is to be run: a task, and the key by which it is known again when a job is resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple


class Task(NamedTuple):
    """A command with what belongs to it.

    Args:
        command: for `sh -c`.
        parameters: the values that it was made with, for people and collectors; none for a batch.
        inputs: content of files in its working folder; `stdin` is its standard input.
        results: names of results, each with `stdout` or a path below the working folder.
    """

    command: str
    parameters: Mapping[str, object] = {}
    inputs: Mapping[str, bytes] = {}
    results: Mapping[str, str] = {'stdout': 'stdout'}

    def key(self) -> bytes:
        """16 bytes that only a task with the same content has."""
        if not self.parameters and not self.inputs and self.results == _STDOUT:
            return hashlib.blake2b(self.command.encode('utf-8', 'surrogateescape'), digest_size=16).digest()
        inputs = {name: hashlib.sha256(data).hexdigest() for name, data in self.inputs.items()}
        parameters = {name: repr(value) for name, value in self.parameters.items()}
        text = json.dumps([self.command, parameters, inputs, dict(self.results)], sort_keys=True)
        return hashlib.blake2b(text.encode('ascii'), digest_size=16, person=b'task').digest()


_STDOUT = {'stdout': 'stdout'}
