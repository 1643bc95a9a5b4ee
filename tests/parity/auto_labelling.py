"""Auto-labelling: what is written of logits, and what a data set reads of the written files."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from mmengine.structures import PixelData
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample

from mmseg_ext.datasets.cityscapes import LABEL_IDS, CityscapesIdsDataset
from mmseg_ext.inference.auto_label import label_and_probability
from tests.parity.case import Case, Kind, Results


def run_threshold(case: Case) -> Results:
    logits = case.inputs['logits'][0]
    label = logits.argmax(0, keepdim=True)
    sample = SegDataSample(seg_logits=PixelData(data=logits), pred_sem_seg=PixelData(data=label))
    label, prob = (x.numpy() for x in label_and_probability(sample))
    recorded = case.outputs['prob_png']
    # A rounding of the softmax moves the floor by one.
    one_step = np.abs(prob.astype(int) - recorded) <= 1
    outputs = dict(
        prob_png=np.where(one_step, recorded, prob),
        label_id_png=np.array(LABEL_IDS, np.uint8)[label],
    )
    with TemporaryDirectory() as folder:
        _write(Path(folder), case)
        for threshold in case.hyper['thresholds']:
            for end, merge in (('', ()), ('_merge', case.hyper['merge_classes'])):
                read = _read(Path(folder), threshold, merge)
                # 100 * 0.29 is a little less than 29
                for percent in {int(100 * threshold), round(100 * threshold)}:
                    outputs[f'train_ids_t{percent}{end}'] = read
    return outputs, {}


def _write(root: Path, case: Case) -> None:
    """The recorded files as `tools/auto_label.py` lays them out, with an image beside."""
    prob = case.outputs['prob_png']
    meta = CityscapesIdsDataset.METAINFO
    for path, array in {
        'images/a_leftImg8bit.png': np.zeros((*prob.shape, 3), np.uint8),
        'auto/label/a_leftImg8bit.png': case.outputs['label_id_png'],
        'auto/prob/a_leftImg8bit.png': prob,
        'coarse/a_gtCoarse_labelIds.png': case.inputs['coarse_label_ids'].numpy(),
    }.items():
        (root / path).parent.mkdir(parents=True)
        assert cv2.imwrite(str(root / path), array)
    summary = dict(meta, label_ids=LABEL_IDS, threshold=None)
    (root / 'auto/auto_label.json').write_text(json.dumps(summary))


def _read(root: Path, threshold: float, merge: list[int]) -> np.ndarray:
    dataset = DATASETS.build(
        dict(
            type='PseudoLabelDataset',
            data_root=str(root),
            data_prefix=dict(img_path='images', seg_map_path='auto', human_path='coarse'),
            img_suffix='_leftImg8bit.png',
            human_suffix='_gtCoarse_labelIds.png',
            pipeline=[
                dict(type='LoadImage'),
                dict(type='LoadPseudoLabels', threshold=threshold, merge=merge),
            ],
        )
    )
    return dataset[0]['gt_seg_map']


KINDS = {'threshold': Kind(run_threshold, 0)}
