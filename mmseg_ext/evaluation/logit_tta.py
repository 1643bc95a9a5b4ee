"""Test-time augmentation that averages logits, as HMSA's authors do for flips (arXiv 2005.10821).

The host's ``SegTTAModel`` averages probabilities.
"""

from typing import Any

import torch
from mmengine.model import BaseTTAModel
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor


@MODELS.register_module()
class LogitTTAModel(BaseTTAModel):
    """Predicts from the mean of the logits of all augmentations of an image.

    Logits are flipped back and resized to the original size before they are averaged. Memory holds
    only their sum and the logits of one augmentation.

    Returned samples hold the label and metainfo of the first augmentation, the float32 mean
    ``seg_logits`` (C, H, W), and ``pred_sem_seg`` (1, H, W). For one channel, ``seg_logits`` is the
    sigmoid of the mean, as in the host.
    """

    def test_step(self, data: dict[str, Any]) -> list[SegDataSample]:
        """Predicts a batch of ``{key: [augmentation][image]}``, as ``TestTimeAug`` packs it."""
        count = len(data['inputs'])
        augmentations = ({key: value[i] for key, value in data.items()} for i in range(count))
        first = self.module.test_step(next(augmentations))
        sums = [_take_logits(sample) for sample in first]
        for augmentation in augmentations:
            for total, sample in zip(sums, self.module.test_step(augmentation), strict=True):
                total += _take_logits(sample)
        return [self._decide(*pair, count) for pair in zip(first, sums, strict=True)]

    def merge_preds(self, data_samples_list: list[list[SegDataSample]]) -> list[SegDataSample]:
        """Merges predictions ``[image][augmentation]``; their logits are removed."""
        merged = []
        for samples in data_samples_list:
            logits = torch.stack([_take_logits(sample) for sample in samples])
            merged.append(self._decide(samples[0], logits.sum(0), len(samples)))
        return merged

    def _decide(self, sample: SegDataSample, total: Tensor, count: int) -> SegDataSample:
        """Stores the mean of ``count`` logits with the sum ``total``, and its prediction."""
        logits = total / count
        if len(logits) == 1:
            logits = logits.sigmoid()
            label = (logits > self.module.decode_head.threshold).to(logits)
        else:
            label = logits.argmax(dim=0, keepdim=True)
        sample.seg_logits = PixelData(data=logits)
        sample.pred_sem_seg = PixelData(data=label)
        return sample


def _take_logits(sample: SegDataSample) -> Tensor:
    """Removes the logits (C, H, W) from ``sample`` and returns them."""
    logits = sample.seg_logits.data.float()
    del sample.seg_logits
    if len(logits) > 1:
        return logits
    # The host has applied the sigmoid. In float32, values closer to 0 or 1 than eps are unreliable.
    return torch.logit(logits, eps=1e-7)
