"""Rows of a classifier, taken by the names of their classes from that of other classes."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from mmseg.utils import dataset_aliases, get_classes
from rich import box
from rich.table import Table
from torch import Tensor, nn

from ..errors import UserError
from .read import classes_of, read_checkpoint

SYNONYMS = (  # of CamVid, Cityscapes, ADE20K and Pascal
    {'airplane', 'aeroplane'},
    {'bicycle', 'bicyclist'},
    {'motorcycle', 'motorbike', 'minibike'},
    {'person', 'pedestrian'},
    {'sidewalk', 'pavement'},
    {'traffic sign', 'sign', 'sign symbol'},
    {'vegetation', 'tree'},
)
DATA_SETS = sorted(alias for aliases in dataset_aliases.values() for alias in aliases)


def class_names(names: Sequence[str], checkpoint: str) -> list[str]:
    """Names of the classes of a checkpoint.

    Args:
        names: Name of a data set that the host knows, or the names themselves; none for those that
            the checkpoint holds.
        checkpoint: Path or address.

    Raises:
        UserError: The data set is unknown, the checkpoint holds no names, or a name is repeated.
    """
    if not names:
        held = classes_of(read_checkpoint(checkpoint))
        if not held:
            raise UserError(
                f'--init-classes: {checkpoint} does not name its classes: give their names, or '
                'the name of their data set, such as cityscapes'
            )
        return list(held)
    if len(names) == 1:
        if names[0] not in DATA_SETS:
            close = get_close_matches(names[0], DATA_SETS) or ['cityscapes', 'ade20k', 'voc']
            raise UserError(
                f'--init-classes {names[0]}: no data set has this name: give '
                f'{", ".join(close)}, or the names of all classes of the checkpoint'
            )
        return [name.strip() for name in get_classes(names[0])]
    repeated = next((name for name in names if list(names).count(name) > 1), None)
    if repeated is not None:
        raise UserError(f'--init-classes names {repeated} twice: name each class once')
    return list(names)


def matching_rows(theirs: Sequence[str], ours: Sequence[str]) -> list[int | None]:
    """Row of ``theirs`` for each of ``ours``: that of the same name, else of a synonym, else None.

    Raises:
        UserError: No class is in both.
    """
    plain = [_plain(name) for name in theirs]
    rows: list[int | None] = []
    for name in map(_plain, ours):
        synonyms = next((group for group in SYNONYMS if name in group), {name})
        same = (
            name if name in plain else next((other for other in plain if other in synonyms), None)
        )
        rows.append(None if same is None else plain.index(same))
    if not any(row is not None for row in rows):
        raise UserError(
            f'--init-classes: none of {", ".join(theirs[:3])}, ... is a class of the data, which '
            f'has {", ".join(ours[:3])}, ...: omit it'
        )
    return rows


def _plain(name: str) -> str:
    return ' '.join(name.lower().replace('_', ' ').replace('-', ' ').split())


class TakeRows:
    """Takes the rows of a classifier's layer when it loads weights of other classes.

    Classes without a row keep the values that the layer has.

    Args:
        rows: Row of the loaded layer for each class, or None.
        count: Number of classes of the loaded layer.
    """

    def __init__(self, rows: Sequence[int | None], count: int) -> None:
        self.rows = rows
        self.count = count

    def __call__(self, layer: nn.Module, state_dict: dict, prefix: str, *_: Any) -> None:
        """Replaces the tensors of ``layer`` in ``state_dict``.

        Raises:
            UserError: The loaded layer has fewer rows than classes.
        """
        for name, parameter in layer.named_parameters(recurse=False):
            loaded = state_dict.get(f'{prefix}{name}')
            if not isinstance(loaded, Tensor) or loaded.shape[1:] != parameter.shape[1:]:
                continue
            if len(loaded) < self.count:
                raise UserError(
                    f'--init-classes names {self.count} classes, but {prefix}{name} of the '
                    f'checkpoint has {len(loaded)} rows: name the classes that it was trained with'
                )
            taken = parameter.detach().clone()
            for i, row in enumerate(self.rows):
                if row is not None:
                    taken[i] = loaded[row]
            state_dict[f'{prefix}{name}'] = taken


def take_rows_by_name(
    model: nn.Module, theirs: Sequence[str], ours: Sequence[str]
) -> list[int | None]:
    """Makes the classifiers of a model take the rows of the classes that both have when they load.

    Classifiers are the modules whose name ends with ``_seg``, in all heads.

    Args:
        model: Model of the classes ``ours``.
        theirs: Classes of the weights that will be loaded.
        ours: Classes of the data.

    Returns:
        Row for each of ``ours``, or None.
    """
    rows = matching_rows(theirs, ours)
    for name, layer in model.named_modules():
        if name.endswith('_seg'):
            layer.register_load_state_dict_pre_hook(TakeRows(rows, len(theirs)))
    return rows


def rows_table(theirs: Sequence[str], ours: Sequence[str], rows: Sequence[int | None]) -> Table:
    """Table of the rows for the terminal."""
    table = Table('class', 'starts from', box=box.SIMPLE_HEAD)
    for name, row in zip(ours, rows, strict=True):
        table.add_row(name, 'random weights' if row is None else f'row {row}, {theirs[row]}')
    return table
