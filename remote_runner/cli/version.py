"""`remote_runner version`: what `--version` shows."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from remote_runner import __version__
from remote_runner.cli.options import Parser

_DESCRIPTION = """\
Show the version of remote_runner, as `remote_runner --version`.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = Parser(
        prog='remote_runner version',
        description=_DESCRIPTION,
        usage='%(prog)s [options]',
        epilog='exit status: 0 it was shown, 2 wrong usage',
    )
    parser.add_argument('--json', action='store_true', help='write a JSON object to stdout, with `version`')
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    import json

    from remote_runner.ui.output import Output

    options = make_parser().parse_args(arguments)
    Output().write(json.dumps({'version': __version__}) + '\n' if options.json else f'remote_runner {__version__}\n')
    return 0
