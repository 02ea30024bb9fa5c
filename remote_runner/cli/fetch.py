"""`remote_runner fetch`: bring home what components wrote."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from remote_runner.cli.options import add_comparison_options, add_results_option
from remote_runner.cli.targets import make_parser as make_target_parser
from remote_runner.cli.targets import opened, parse, show_failures

_DESCRIPTION = """\
Bring home what components wrote: what their `fetch` attribute names, and always output.log, into
`results/<run id>/<component>@<host>/` beside the config. Files that are here already are not sent again.

    remote_runner fetch
    remote_runner fetch 'client*' --results /data/experiment7
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = make_target_parser(
        'fetch',
        _DESCRIPTION,
        '[NAMES...] [options]',
        '0 all came, 1 a file could not be brought, 3 a host could not be reached',
        json='write events to stdout, one JSON object a line',
    )
    add_results_option(parser)
    add_comparison_options(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = parse(make_parser(), arguments)
    with opened(options) as session:
        from remote_runner.deploy.results import bring_home
        from remote_runner.errors import FetchIncomplete
        from remote_runner.events import Events
        from remote_runner.files.options import CopyOptions
        from remote_runner.files.results import run_folder
        from remote_runner.ui.copied import Summary
        from remote_runner.ui.output import JsonLines, Output
        from remote_runner.ui.terminal import Terminal

        wanted = session.named(options.names)
        status = show_failures(session, wanted)
        there = [seen for seen in wanted if seen.facts]
        root = options.results or session.target.home / 'results'
        events = Events()
        summary = Summary()
        events.listen(JsonLines() if options.json else summary)
        try:
            with Terminal(table=False, quiet=True) as terminal:
                events.listen(terminal)
                copying = CopyOptions(remembered=not options.no_hash_cache, rate=options.bwlimit)
                bring_home(session.pool, there, root, events, copying)
        except FetchIncomplete as error:
            error.exit_status = max(error.exit_status, status)
            raise
        finally:
            for line in summary.text().splitlines():
                logging.getLogger(__name__).info('%s', line)
        if not options.json:
            for run in dict.fromkeys(seen.run for seen in there):
                Output().write(f'{run_folder(root, run)}\n')
    return status
