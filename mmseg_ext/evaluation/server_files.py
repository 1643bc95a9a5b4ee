"""Predictions as files for the test server of a data set, whose test images have no labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.evaluator import BaseMetric
from mmseg.registry import DATASETS, METRICS
from PIL import Image

from ..config.walk import leaf_datasets
from ..datasets.transforms import without_label_transforms
from ..errors import UserError
from ..segmentors.protocols import HasLabelIds


@METRICS.register_module()
class ServerFiles(BaseMetric):
    """Writes the prediction of every image as a PNG file with the image's name.

    The files hold the values of the data set's label files: ids for Cityscapes, the class index for
    Mapillary, and the class index plus 1 for ADE20K (``reduce_zero_label``).

    Args:
        folder: Output folder; it is made if it does not exist.
        values: Value of each class in a file; None for the class index, or the class index plus 1
            where the data set reduces the zero label.
    """

    def __init__(self, folder: str, values: Sequence[int] | None = None) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.values = values
        self.folder.mkdir(parents=True, exist_ok=True)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Writes samples with ``pred_sem_seg`` (1, H, W), of the size of the original image."""
        shift = int(self.dataset_meta.get('reduce_zero_label', False))
        values = self.values or range(shift, shift + len(self.dataset_meta['classes']))
        table = np.asarray(values, np.uint8)
        for sample in data_samples:
            label = sample['pred_sem_seg']['data'].squeeze(0).long().cpu().numpy()
            name = Path(sample['img_path']).with_suffix('.png').name
            Image.fromarray(table[label]).save(self.folder / name)

    def evaluate(self, size: int) -> dict:
        """Returns no scores; ``size`` is the number of images of all processes."""
        barrier()
        if is_main_process():
            print(f'files for the test server: {size} in {self.folder}')
        return {}

    def compute_metrics(self, results: list) -> dict:
        return {}


def write_server_files(cfg: Config, out: str | None) -> None:
    """Changes the config of a test so that it writes files for the test server and reads no label.

    Args:
        cfg: Config of ``prepare_test``; its ``server_prefix`` names the folder of the test images.
        out: Folder for the files.

    Raises:
        UserError: There is no folder, or the data set has no test server or other classes.
    """
    if not out:
        raise UserError('--format-only writes the predictions to a folder: name it with --out DIR')
    leaves = leaf_datasets(cfg.test_dataloader)
    prefix = cfg.get('server_prefix')
    if not isinstance(prefix, dict) or 'img_path' not in prefix or len(leaves) != 1:
        raise UserError(
            f'--format-only: {cfg.filename} names no images for a test server: give a config of '
            'Cityscapes, ADE20K or Mapillary, or set server_prefix=dict(img_path=FOLDER)'
        )
    (leaf,) = leaves
    dataset = DATASETS.get(leaf['type'])
    classes = (leaf.get('metainfo') or {}).get('classes')
    if classes is not None and tuple(classes) != tuple(dataset.METAINFO.get('classes', classes)):
        raise UserError(
            f'--format-only: the test server takes all classes of {leaf["type"]}, but the config '
            f'has {len(classes)} others: remove metainfo.classes'
        )
    leaf['data_prefix'] = dict(img_path=prefix['img_path'])
    leaf['pipeline'] = without_label_transforms(leaf['pipeline'])
    leaf.pop('ann_file', None)
    values = list(dataset.label_ids) if isinstance(dataset, HasLabelIds) else None
    cfg.test_evaluator = dict(type='ServerFiles', folder=out, values=values)
