# ruff: noqa: F821  (a config finds Component and config ready)
"""The deploy, for remote_runner."""

import json
from pathlib import Path

deploy = json.loads(Path('deploy.json').read_text())['deploy']

for index, program in enumerate(('server', 'client')):
    component = Component()
    component.name = program
    component.base_dir = deploy['base']
    component.executable = program
    component.args = ['--number', index]
    component.files = {f'files/{name}': name for name in deploy['files'] if name.startswith(program)}
    component.start_index = index
    for host in deploy['hosts']:
        component.host = host
        config.add_component(component)
