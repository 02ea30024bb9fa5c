"""Lines of components' output on stdout: with their components in front, folded, or as JSON."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Sequence

from remote_runner.deploy.logs import Line
from remote_runner.deploy.seen import Seen
from remote_runner.ui.text import harmless, tame, width

#: Colours of components (ECMA-48 SGR), one after the other.
_COLORS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
#: Columns of a label to which the others are aligned.
_WIDEST = 32


class Printer:
    """Takes lines in the order in which they shall stand.

    Args:
        components: of which there may be lines.
        wanted: only lines in which it is found.
        with_time: whether the time of each line stands in front.
        color: whether stdout is a terminal that shows colours.
        terminal: whether it is one at all: nothing may reach it that it would obey.
    """

    def __init__(
        self,
        components: Sequence[Seen],
        wanted: re.Pattern[bytes] | None,
        *,
        with_time: bool,
        color: bool,
        terminal: bool,
    ) -> None:
        self.components = {seen.label: seen for seen in components}
        self._wanted = wanted
        self._with_time = with_time
        self._color = color
        self._terminal = terminal
        column = min(_WIDEST, max((width(harmless(label)) for label in self.components), default=0))
        self._prefixes = {label: self._prefix(n, label, column) for n, label in enumerate(self.components)}

    def _prefix(self, number: int, label: str, column: int) -> bytes:
        name = harmless(label)
        padding = ' ' * max(0, column - width(name))
        text = f'{name}{padding} |' if len(self.components) > 1 else f'{name} |'
        if self._color:
            text = f'\x1b[{_COLORS[number % len(_COLORS)]}m{text}\x1b[0m'
        return text.encode('utf-8', 'surrogateescape')

    def __call__(self, line: Line) -> None:
        """One line, if it is wanted."""
        if self._wanted is None or self._wanted.search(line.text):
            self.show(line)

    def show(self, line: Line) -> None:
        """One line that is wanted."""
        raise NotImplementedError

    def flush(self) -> None:
        """Let everything be seen that was shown."""
        sys.stdout.flush()

    def end(self) -> None:
        """No line follows."""
        self.flush()

    def text(self, line: Line) -> bytes:
        """What stands behind the prefix. On a terminal colours stay, and nothing else that it would obey.

        Of a line that rewrote itself a terminal shows the last state.
        """
        text = line.text
        if self._terminal:
            text = tame(text, color=self._color)
            text = text.rstrip(b'\r').rpartition(b'\r')[2]
            text += b'\x1b[0m' if b'\x1b' in text else b''
        return text

    def moment(self, line: Line) -> bytes:
        """The time in front, if it is wanted."""
        if not self._with_time:
            return b''
        text = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(line.time)) + f'.{int(line.time % 1 * 1000):03} '
        return text.encode('ascii')


class PrefixedLines(Printer):
    """Each line with its component in front."""

    def show(self, line: Line) -> None:
        """Print it."""
        sys.stdout.buffer.write(self.moment(line) + self._prefixes[line.label] + b' ' + self.text(line) + b'\n')


class JsonObjects(Printer):
    """Each line as an object of JSON."""

    def show(self, line: Line) -> None:
        """Print it."""
        seen = self.components[line.label]
        text = line.text.decode('utf-8', 'surrogateescape')
        sys.stdout.write(
            json.dumps({'time': line.time, 'component': seen.name, 'host': seen.host, 'line': text}) + '\n'
        )


class FoldedLines(Printer):
    """Equal output once, under the names of all components that have it, the largest group first."""

    def __init__(self, components: Sequence[Seen], wanted: re.Pattern[bytes] | None, **how: bool) -> None:
        super().__init__(components, wanted, **{**how, 'with_time': False})
        self._lines: dict[str, list[bytes]] = {seen.label: [] for seen in components}

    def show(self, line: Line) -> None:
        """Keep it."""
        self._lines[line.label].append(self.text(line))

    def end(self) -> None:
        """Print all."""
        from remote_runner.hosts.address import fold_labels
        from remote_runner.ui.folded import print_folded

        groups: dict[bytes, list[str]] = defaultdict(list)
        for label, lines in self._lines.items():
            groups[b''.join(line + b'\n' for line in lines)].append(label)
        print_folded(groups, fold_labels)
