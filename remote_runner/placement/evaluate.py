"""The user's own evaluation function: a Python file with `score(host) -> float`, lower is better.

`host` is a `choose.Known`: `host.name`, `host.load_weight`, `host.memory_weight`, `host.virtual`, and `host.report`
with the fields of `choose.Report`. The file may import `score` and `load_per_core` from
`remote_runner.placement.choose`; what it imports from beside itself it imports at its top.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

from remote_runner.config.usercode import Place, UserCode, UserFile, told
from remote_runner.errors import ConfigError, UserCodeError
from remote_runner.placement.choose import Known, Score

KIND = 'evaluation file'
FUNCTION = 'score'


def read_score(path: str) -> Score:
    """The function that a file defines; what it raises when it is called is a UserCodeError, as is what is no number.

    Raises:
        ConfigError: the file is missing, cannot be compiled, or defines no such function.
        UserCodeError: it raised an error.
    """
    file = UserFile(str(Path(path).expanduser().absolute()), KIND)
    with UserCode() as code:
        if not code.compiles(file):
            raise code.faults[0]
        module = code.run(file, 'remote_runner_evaluation', {})
    function = getattr(module, FUNCTION, None)
    if not callable(function):
        raise ConfigError(f'{KIND} {file.path}: it defines no function {FUNCTION}(host)')

    def rate(host: Known) -> float:
        try:
            found = function(host)
        except (Exception, SystemExit) as error:  # users' code may raise anything: here it becomes their own message
            raise told(error, file) from error
        if not isinstance(found, Real) or math.isnan(found):
            raise UserCodeError(f'{_place(function, file)}: {FUNCTION} of {host.name} is {found!r}, not a number')
        return float(found)

    return rate


def _place(function: Callable[..., Any], file: UserFile) -> str:
    code = getattr(function, '__code__', None)
    return str(Place(code.co_filename, code.co_firstlineno)) if code is not None else file.path
