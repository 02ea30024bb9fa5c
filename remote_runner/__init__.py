"""remote_runner: deploys and runs multi-process systems over many Linux hosts through plain SSH.

The rooms of the house, top to bottom (imports run downward only): `cli` (options), `ui` (what a person sees),
`deploy` (from plan to running programs), `files` (bringing files to hosts), `config` (what users write), `hosts`
(connections), `agent` (what runs on the hosts), `wire` (the messages between the two). `events` and `errors` are
shared by all of them but the last two.
"""

__version__ = '0.1.0'
