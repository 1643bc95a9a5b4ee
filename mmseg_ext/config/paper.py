"""The mIoU that a paper reports for a config, in the config's own variable ``paper``.

paper = dict(miou=81.3, split='Cityscapes test', source='Table 6')
"""

import ast
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ..errors import UserError


@dataclass(frozen=True)
class PaperScore:
    """A paper's mIoU.

    Args:
        miou: Mean IoU in per cent.
        split: Data set and split that it was measured on, ``Cityscapes val``.
        source: Table of the paper, or another source and the conditions.
    """

    miou: float
    split: str
    source: str

    def __str__(self) -> str:
        return f'{self.miou} mIoU on {self.split} ({self.source})'

    def is_of(self, data_set: str) -> bool:
        """Whether the score was measured on ``data_set``, a name and a split.

        Case is ignored, and a split may be abbreviated: ``val`` is ``validation``.
        """
        name, _, split = self.split.lower().rpartition(' ')
        tested_name, _, tested_split = data_set.lower().rpartition(' ')
        short, long = sorted((split, tested_split), key=len)
        return name == tested_name and bool(short) and long.startswith(short)


def drop_inherited_score(cfg: Config, path: str) -> None:
    """Removes ``paper`` if only a base of the config sets it, because the base is another model."""
    if 'paper' not in cfg:
        return
    names = {
        target.id
        for statement in ast.parse(Path(path).read_text()).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    if 'paper' not in names:
        cfg.pop('paper')


def paper_score(cfg: Config) -> PaperScore | None:
    """Score that the paper reports for a config; None if it reports none.

    Raises:
        UserError: ``paper`` has other keys than ``PaperScore``.
    """
    values = cfg.get('paper')
    if values is None:
        return None
    keys = PaperScore.__annotations__.keys()
    if not isinstance(values, dict) or values.keys() != keys:
        raise UserError(f'paper={values} in {cfg.filename}: give a dict of {", ".join(keys)}')
    return PaperScore(**values)
