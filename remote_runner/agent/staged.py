"""Where the master puts what tasks need on this host: see `jobs/staging.py`."""

#: Below the home; in it each job, or each one after another that needs the same, has a folder.
FOLDER = '.cache/remote_runner/dependencies'


def root_of(path: str) -> str:
    """The folder of a job in which `path` is, or that it is; '' where it is in none."""
    begin = path.find('/{}/'.format(FOLDER))
    if begin < 0:
        return ''
    end = path.find('/', begin + len(FOLDER) + 2)
    return path if end < 0 else path[:end]
