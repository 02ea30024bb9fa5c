project = 'remote_runner'
extensions = ['myst_parser']
