"""Going on after an attribute that no component or sweep has, so that one report tells all faults of a config.

Setting such an attribute raises an error at once, and in any other program that would be its end. While a config or
muddler is loaded, the statement that did it is noted and left out, and the next one runs. A file which sets no such
attribute runs exactly as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ast
    from types import CodeType

# The function that a changed file calls with the error in hand: whether it was noted, and the next statement may run.
NOTED = '__remote_runner_noted__'

_SETTING = re.compile(r'\.\s*(?P<name>\w+)\s*(?:[-+*/%&|^@]|//|\*\*|>>|<<)?=(?!=)|\b(?:setattr|delattr|del)\b')


def compiled(source: str, path: str, legal: Container[str]) -> CodeType:
    """The code of a file, in which what sets an attribute asks `NOTED` whether to go on after an error.

    Args:
        source: its text.
        path: what Python calls it in tracebacks.
        legal: the attributes that may be set without an error.

    Raises:
        SyntaxError: it does not compile.
    """
    tree: Any = source
    if not all(found['name'] in legal for found in _SETTING.finditer(source)):
        tree = _going_on(source, path)
    return compile(tree, path, 'exec', dont_inherit=True)


def _going_on(source: str, path: str) -> ast.Module:
    import ast  # late: it takes 3 ms, and most files do not need it

    class GoingOn(ast.NodeTransformer):
        """Puts each statement that sets an attribute, or calls what may, into a `try` of its own."""

        def visit(self, node: ast.AST) -> Any:
            if isinstance(node, (ast.Assign, ast.AugAssign, ast.Delete, ast.Expr)):
                return self._guarded(node) if _sets_attribute(node) else node
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name != 'muddle':
                return node  # who calls it may deal with the error
            if isinstance(node, (ast.With, ast.Lambda)) or getattr(node, 'handlers', None):
                return node  # as may the author, there
            return self.generic_visit(node)

        @staticmethod
        def _guarded(node: ast.stmt) -> ast.stmt:
            guard = ast.parse(f'try: pass\nexcept AttributeError:\n if not {NOTED}(): raise').body[0]
            for part in ast.walk(guard):
                ast.copy_location(part, node)
            guard.body = [node]  # type: ignore[attr-defined]
            return guard

    def _sets_attribute(node: ast.stmt) -> bool:
        match node:
            case ast.Assign(targets=targets) | ast.Delete(targets=targets):
                return any(isinstance(part, ast.Attribute) for target in targets for part in ast.walk(target))
            case ast.AugAssign(target=target):
                return isinstance(target, ast.Attribute)
            case ast.Expr(value=ast.Call()):
                return True  # what is called may do it
        return False

    tree: ast.Module = GoingOn().visit(ast.parse(source, path))
    return tree
