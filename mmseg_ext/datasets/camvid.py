"""CamVid (Brostow, Fauqueur, Cipolla: "Semantic object classes in video", 2009)."""

from typing import Any

from mmseg.registry import DATASETS

from .folder import FolderDataset


@DATASETS.register_module()
class CamVidDataset(FolderDataset):
    """CamVid at 480x360 with the 11 classes of SegNet (2015); the label value 11 is ignored.

    The folder holds images in ``train``, ``val`` and ``test``, and labels in ``trainannot``,
    ``valannot`` and ``testannot``. For example, the label of ``train/0001TP_006690.png`` is
    ``trainannot/0001TP_006690.png``.

    Images may be ``.png``, as in the public release, or ``.jpg``, as in some copies of it.
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
            'CamVid consists of the folders train, trainannot, val, valannot, test and testannot '
            f'(see {__name__}); name the folder that holds them with data_root (--data-root)'
        )
