"""Search for the images in a folder of this machine."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import UserError


def find_images(folder: str | Path, suffixes: Sequence[str]) -> list[str]:
    """Sorted paths of the files in a folder and its sub-folders whose names have an ending.

    Hidden files and folders, whose names begin with a dot, are omitted.

    Args:
        folder: Folder.
        suffixes: Endings of the names; upper and lower case are the same.

    Raises:
        UserError: A folder cannot be read or holds itself by a link, or a pipe, a device or a
            broken link is named like an image.
    """
    return sorted(_search(str(folder), tuple(suffix.lower() for suffix in suffixes), ()))


def _search(folder: str, suffixes: tuple[str, ...], parents: tuple[str, ...]) -> Iterator[str]:
    parents = (*parents, os.path.realpath(folder))
    if parents[-1] in parents[:-1]:
        raise UserError(f'{folder} is a link to a folder that holds it: remove the link')
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise UserError(
            f'{folder} cannot be read ({error.strerror or error}): correct its permissions'
        ) from error
    for name in names:
        path = os.path.join(folder, name)
        if name.startswith('.'):
            continue
        if os.path.isdir(path):
            yield from _search(path, suffixes, parents)
        elif name.lower().endswith(suffixes):
            if not os.path.isfile(path):
                raise UserError(
                    f'{path} is named like an image and is no file, but a pipe, a device or a '
                    'broken link: restore or remove it'
                )
            yield path
