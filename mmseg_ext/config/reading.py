"""Reading a config file and its bases, with errors that name the file or the line."""

import ast
import traceback
from pathlib import Path

from mmengine.config import Config

from ..errors import UserError


def read_config(path: str) -> Config:
    """Config of a file and of its bases.

    Raises:
        UserError: A file does not exist, cannot be read, is its own base, or has an error.
    """
    if not Path(path).is_file():
        raise UserError(f'the config {path} does not exist: see the folder configs')
    try:
        files = _with_bases(Path(path).resolve(), ())
        return Config.fromfile(path)
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f'the config {path} cannot be read: {error}') from error
    except UserError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f for f in frames if f.name == '<module>' and Path(f.filename).resolve() in files]
        where = f'line {lines[-1].lineno} of {lines[-1].filename}' if lines else path
        raise UserError(
            f'{where} has an error ({type(error).__name__}: {error}): correct the config'
        ) from error


def _with_bases(path: Path, children: tuple[Path, ...]) -> set[Path]:
    """A config file and its bases; the host reads one that is its own base until Python gives up.

    Raises:
        UserError: The file is its own base.
    """
    if path in children:
        raise UserError(f'{path} is its own base, through {children[-1]}: correct a _base_')
    files = {path}
    if path.suffix != '.py' or not path.is_file():
        return files
    for statement in ast.parse(path.read_text(encoding='utf-8'), str(path)).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == '_base_':
            for node in ast.walk(statement.value):
                if isinstance(node, ast.Constant) and '::' not in str(node.value):
                    base = (path.parent / str(node.value)).resolve()
                    files |= _with_bases(base, (*children, path))
    return files
