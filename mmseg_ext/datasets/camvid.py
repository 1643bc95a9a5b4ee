"""CamVid (Brostow, Fauqueur, Cipolla: "Semantic object classes in video", 2009)."""

from typing import Any

from mmseg.registry import DATASETS

from .folder import FolderDataset


@DATASETS.register_module()
class CamVidDataset(FolderDataset):
    """The 11 classes at 480x360 that SegNet (2015) made popular; file value 11 is ignored.

    The folder holds ``train``, ``val`` and ``test`` with images and ``trainannot``, ``valannot``
    and ``testannot`` with labels: ``train/0001TP_006690.png`` has ``trainannot/0001TP_006690.png``.

    Images are ``.png`` in the public release and ``.jpg`` in copies of it: whichever the folder
    holds.
    """

    METAINFO = dict(
        classes=(
            'sky',
            'building',
            'pole',
            'road',
            'pavement',
            'tree',
            'sign symbol',
            'fence',
            'car',
            'pedestrian',
            'bicyclist',
        ),
        palette=[
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(label_map={11: 255}, **kwargs)

    def advice(self) -> str:
        return (
            'CamVid holds the folders train, trainannot, val, valannot, test and testannot, as '
            f'{__name__} says; give the folder that holds them with data_root (--data-root).'
        )
