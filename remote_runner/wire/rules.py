"""What is left out of a folder, as both sides know it; `config/exclude.py` makes it of the patterns of users."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, Tuple

    #: A regular expression; whether it is for paths (else for the last name alone), whether for folders only, and
    #: whether what it matches is not left out.
    Rule = Tuple[str, bool, bool, bool]


class Rules:
    """Rules, of which the first that matches decides."""

    def __init__(self, rules: "Iterable[Rule]") -> None:
        import re  # long to import, and of no use to most agents

        self._rules = [
            (re.compile(regex, re.DOTALL), is_for_paths, is_for_folders, keeps)
            for regex, is_for_paths, is_for_folders, keeps in rules
        ]

    def excludes(self, path: str, is_folder: bool) -> bool:
        """Whether a path, relative to the folder, is left out, where no folder that it is in is."""
        name = path.rpartition('/')[2]
        for regex, is_for_paths, is_for_folders, keeps in self._rules:
            if (is_folder or not is_for_folders) and regex.fullmatch(path if is_for_paths else name):
                return not keeps
        return False
