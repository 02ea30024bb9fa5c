"""The deploy, for pyinfra: `files.sync` is faster than six times `files.put`."""

import json
from pathlib import Path

from pyinfra.operations import files, server

deploy = json.loads(Path('deploy.json').read_text())['deploy']

server.shell(name='Quit', commands=[deploy['quit']])
files.sync(name='Put files', src='files', dest=deploy['base'])
server.shell(name='Start server', commands=[deploy['start_server']])
server.shell(name='Start client', commands=[deploy['start_client']])
