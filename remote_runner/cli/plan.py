"""`remote_runner plan`: what a run with the same options would do."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from remote_runner.cli import run
from remote_runner.cli.options import joined

_DESCRIPTION = """\
Show what a run with these options would do: hosts, components in their order, files with their sizes. Nothing is done,
and no host is connected to.

    remote_runner plan -c config.py -m ta3_muddler.py
    remote_runner plan -c config.py --json | jq '.indexes[].components[].name'
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options: those of a run."""
    parser = run.make_parser(names=False)
    parser.prog = 'remote_runner plan'
    parser.description = _DESCRIPTION
    parser.usage = '%(prog)s -c CONFIG [-m MUDDLER]... [options]'
    parser.epilog = 'exit status: 0 the config is right, 2 it is not, 1 a file vanished meanwhile'
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = make_parser().parse_args(joined(arguments, ('--extra-args',)))
    from remote_runner.deploy.preview import preview
    from remote_runner.ui.log import configure
    from remote_runner.ui.output import Output
    from remote_runner.ui.preview import preview_text

    configure(options.log_level)
    shown = preview(run.load_plan(options))
    Output().write(f'{json.dumps(shown, indent=2)}\n' if options.json else preview_text(shown))
    return 0
