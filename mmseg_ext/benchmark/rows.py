"""Rows of the benchmark table with their cells and notes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .model_result import ModelResult

NOT_TRAINED = 'not trained'


@dataclass
class Row:
    """One model of a table.

    Args:
        config: Config file.
        name: Name in the table.
        data_set: Name of the tested data set, and the split.
        checkpoint: Path or URL; None if no model was trained.
        folder: Folder of the result, predictions and log.
        problem: Reason for a missing result.
        failed: Whether the problem is an error.
        paper: Mean IoU of the paper, in per cent; None if it is of other data than tested.
        source: The paper's mIoU with its data and its source, of any data.
        result: Result of the test.
    """

    config: str
    name: str
    data_set: str = ''
    checkpoint: str | None = None
    folder: Path | None = None
    problem: str = ''
    failed: bool = False
    paper: float | None = None
    source: str = ''
    result: ModelResult | None = None

    @property
    def difference(self) -> float | None:
        """Mean IoU minus that of the paper, in percentage points; None if one is missing."""
        miou = self.result.scores['mIoU'] if self.result else None
        return None if miou is None or self.paper is None else round(miou - self.paper, 2)


def _cost(name: str, unit: float = 1) -> Callable[[Row], float | None]:
    def value(row: Row) -> float | None:
        number = getattr(row.result.costs, name) if row.result else None
        return None if number is None else number / unit

    return value


def _score(name: str) -> Callable[[Row], float | None]:
    return lambda row: row.result.scores.get(name) if row.result else None


Column = tuple[str, Callable[[Row], float | None], str]
# Heading, value and format of each column with numbers.
COLUMNS: list[Column] = [
    ('mIoU', _score('mIoU'), '.2f'),
    ('PQ', _score('PQ'), '.2f'),
    ('AP', _score('AP'), '.2f'),
    ('box AP', _score('box_AP'), '.2f'),
    ('mAcc', _score('mAcc'), '.2f'),
    ('aAcc', _score('aAcc'), '.2f'),
    ('boundary F', _score('boundary_f'), '.2f'),
    ('parameters (M)', _cost('parameters', 1e6), '.2f'),
    ('GFLOPs', _cost('flops', 1e9), '.2f'),
    ('time (ms)', _cost('seconds', 1e-3), '.1f'),
    ('memory (MiB)', _cost('peak_bytes', 2**20), '.0f'),
    ('paper', lambda row: row.paper, '.2f'),
    ('difference', lambda row: row.difference, '+.2f'),
]


OPTIONAL = ('PQ', 'AP', 'box AP')  # columns of tables with a model that has such a score


def columns_of(rows: Sequence[Row]) -> list[Column]:
    """Columns of a table with these rows."""
    return [
        (heading, value, style)
        for heading, value, style in COLUMNS
        if heading not in OPTIONAL or any(value(row) is not None for row in rows)
    ]


def headings_of(columns: Sequence[Column]) -> list[str]:
    """Headings of a table: those of the names, then those of the columns with numbers."""
    return ['model', 'data set', *(heading for heading, _, _ in columns)]


def cells(row: Row, columns: Sequence[Column]) -> list[str]:
    """Texts of a row under ``headings_of(columns)``; a problem replaces the mIoU."""
    numbers = [
        '' if (number := value(row)) is None else format(number, style)
        for _, value, style in columns
    ]
    if row.result is None:
        numbers[0] = 'failed' if row.failed else row.problem
    return [row.name, row.data_set, *numbers]


def notes(rows: Sequence[Row]) -> list[str]:
    """Notes below the table: units, conditions, and the reasons of failed rows."""
    results = [row.result for row in rows if row.result]
    lines = [f'{row.name} failed: {row.problem}' for row in rows if row.failed]
    lines += [f'{row.name}, paper: {row.source}' for row in rows if row.source]
    if results:
        sizes = {
            f'{row.data_set} {row.result.costs.size[1]}x{row.result.costs.size[0]}'
            for row in rows
            if row.result
        }
        optional = [heading for heading in headings_of(columns_of(rows)) if heading in OPTIONAL]
        missing = sorted({name for r in results for name in r.costs.not_counted})
        lines += [
            'Scores in per cent. Boundary F is the F-score of borders within 3 pixels '
            '(BoundaryFScore, mBF.3).',
            *(
                [
                    f'{", ".join(optional)}: panoptic quality, and average precision of masks and '
                    "boxes, by COCO's protocols (PanopticQuality, InstanceAP)."
                ]
                if optional
                else []
            ),
            f'Costs are for one input image: {", ".join(sorted(sizes))}. Time is the median of '
            'several predictions. Memory is the peak, including weights.',
            'GFLOPs count convolutions, matrix products and attention; a multiplication with '
            f'addition counts 2. Not counted: {", ".join(missing)}.',
            f'Measured on: {"; ".join(sorted({r.device for r in results}))}.',
        ]
    return lines
