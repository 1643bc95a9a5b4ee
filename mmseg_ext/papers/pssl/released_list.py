"""Released lists of labels: the image and the class of a line."""

from collections.abc import Mapping
from pathlib import PurePosixPath

from ...errors import UserError

IMAGE_SUFFIX = '.JPEG'


def image_and_class(line: str, indices: Mapping[str, int]) -> tuple[str, int]:
    """Path of the image and index of the class of a line of a released list.

    The line is the path of a label such as ``train/n01443537/n01443537_12.JPEG_eiseg.npz``. The
    image's path ends at its ``.JPEG``, and its name begins with the class.

    Args:
        line: Line of the list.
        indices: Number of each class, its line in the released file of synsets, from 0.

    Raises:
        UserError: The line names no image, or its class is not among ``indices``.
    """
    stem, suffix, _ = line.partition(IMAGE_SUFFIX)
    if not suffix:
        raise UserError(
            f'{line!r} is no line of a released list, because it has no {IMAGE_SUFFIX}: '
            'give lines such as train/n01443537/n01443537_12.JPEG_eiseg.npz'
        )
    name = PurePosixPath(stem).name.partition('_')[0]
    if name not in indices:
        raise UserError(
            f'{line!r} is of the class {name}, which the file of {len(indices)} synsets does not '
            'list: give the synset file of the list'
        )
    return stem + suffix, indices[name]
