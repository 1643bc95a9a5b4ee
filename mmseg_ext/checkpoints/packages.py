"""Weights inside an installed package, with an address such as ``package://NAME``.

``NAME`` is what one imports. The package is found but not imported, so none of its code runs.
"""

import re
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from ..errors import UserError

SCHEME = 'package://'
HASH = re.compile(r'-([0-9a-f]{8,})\.pth$')  # as PyTorch's hub names files: start of their SHA-256


def file_in_package(address: str) -> Path:
    """Path of the only file ``*.pth`` in an installed package.

    Args:
        address: ``package://NAME``.

    Raises:
        UserError: The package is not installed, it has no such file or several, or the hash in the
            name of the file is not that of its content.
    """
    name = address.removeprefix(SCHEME)
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None:
        raise UserError(
            f'the weights {address} are in a package that is not installed: {_install(name)}'
        )
    folders = spec.submodule_search_locations or []
    files = sorted(path for folder in folders for path in Path(folder).rglob('*.pth'))
    if len(files) != 1:
        raise UserError(
            f'the installed package {name} has {len(files)} files of weights (*.pth) and not 1: '
            f'{_install(name, "another version: ")}'
        )
    expected = HASH.search(files[0].name)
    if expected and not sha256(files[0].read_bytes()).hexdigest().startswith(expected[1]):
        raise UserError(f'{files[0]} is damaged: {_install(name, "", "--force-reinstall ")}')
    return files[0]


def _install(name: str, what: str = '', option: str = '') -> str:
    return f'install {what}pip install {option}{name.replace("_", "-")}'
