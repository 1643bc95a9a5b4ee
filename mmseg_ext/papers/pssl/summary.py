"""The command line of the labels and what it prints."""

import re
from typing import Any

from rich.table import Table

from ...errors import UserError


def parse_shard(text: str) -> tuple[int, int]:
    """(i, n) of the text ``i/n``.

    Raises:
        UserError: It is no such text, or i is not below n.
    """
    match = re.fullmatch(r'(\d+)/(\d+)', text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UserError(f'--shard {text}: give I/N with I from 0 to N - 1, for example 0/4')
    return int(match[1]), int(match[2])


def summary_table(written: dict[str, Any]) -> Table:
    """A row for each classifier; the overlap is that of the classifiers up to this row."""
    means = written['statistics']
    table = Table(title='labels')
    columns = ['classifier', 'predicts class', 'probability']
    if 'iou' in means:
        columns += ['first n', 'IoU', 'on object']
    for column in columns:
        table.add_column(column, justify='left' if column == 'classifier' else 'right')
    for i, classifier in enumerate(written['classifiers']):
        hit, probability = means['hit'][i], means['probability'][i]
        row = [classifier['name'], f'{100 * hit:.1f} %', f'{probability:.3f}']
        if 'iou' in means:
            iou, precision = (100 * means[key][i] for key in ('iou', 'precision'))
            row += [str(i + 1), f'{iou:.2f}', f'{precision:.2f} %']
        table.add_row(*row)
    if 'iou' in means:
        table.caption = (
            f'IoU and share of the labelled pixels on the object: of the first n classifiers; '
            f'objects cover {100 * means["object_share"]:.2f} % of the images, and the largest '
            f'possible IoU of a tenth is {100 * means["largest_iou"]:.2f}'
        )
    return table
