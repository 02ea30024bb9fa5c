"""`remote_runner completion SHELL`: a completion script, or the man page, made from the parsers of all commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

_DESCRIPTION = """\
Print a script with which a shell completes commands, options, files, hosts, sessions and components:

    source <(remote_runner completion bash)                     bash: in ~/.bashrc
    source <(remote_runner completion zsh)                      zsh: in ~/.zshrc, after compinit
    remote_runner completion fish | source                      fish: in ~/.config/fish/config.fish
    remote_runner completion man | man -l -                     the man page, where it is not installed

Shells start faster with the script in a file of its own, to be written again after an update:

    remote_runner completion bash > ~/.local/share/bash-completion/completions/remote_runner
    remote_runner completion zsh > ~/.zfunc/_remote_runner      with `fpath+=(~/.zfunc)` before compinit in ~/.zshrc
    remote_runner completion fish > ~/.config/fish/completions/remote_runner.fish

The first of these needs the package bash-completion.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    from remote_runner.cli.options import Parser

    parser = Parser(
        prog='remote_runner completion',
        description=_DESCRIPTION,
        usage='%(prog)s bash|zsh|fish|man [options]',
        epilog='exit status: 0 it was printed, 2 wrong usage',
    )
    parser.add_argument('what', choices=['bash', 'zsh', 'fish', 'man'], help='the shell, or `man` for the man page')
    parser.add_argument('--json', action='store_true', help='write a JSON object to stdout, with `shell` and `script`')
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    if arguments and arguments[0] == '--words':  # scripts ask for them at the press of a key: no parser is imported
        from remote_runner.cli.shell import words

        return words.main(arguments[1:])
    options = make_parser().parse_args(arguments)
    text = _text(options.what)
    if options.json:
        import json

        text = json.dumps({'shell': options.what, 'script': text}) + '\n'
    sys.stdout.write(text)
    return 0


def _text(what: str) -> str:
    if what == 'man':
        from remote_runner.cli.shell.man import page

        return page()
    from remote_runner.cli.shell.scripts import script

    return script(what)
