"""Sliding windows as the host runs them: one at a time, each padded to the size of the image."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run

BASE = Path(__file__).parents[2] / 'configs' / '_base_' / 'models' / 'r18-d8.py'
CROPS = {'cpu': 96, 'cuda': 512}  # a window that either runs in milliseconds
SHAPE = '8 windows, r18-d8, crop 96 (GPU: 512)'


def _make_slide(device: torch.device) -> tuple[Run, Run]:
    init_default_scope('mmseg')
    crop = CROPS[device.type]
    cfg = Config.fromfile(BASE).model
    cfg.backbone.init_cfg = None
    cfg.decode_head.update(type='FCNHead', channels=128)
    stride = crop * 2 // 3
    cfg.test_cfg = dict(mode='slide', crop_size=(crop, crop), stride=(stride, stride))
    model = revert_sync_batchnorm(MODELS.build(cfg)).eval().to(device)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    size = (crop * 5 // 3, crop * 3)  # two rows of four windows
    image = torch.randn(1, 3, *size, device=device)
    meta = dict(ori_shape=size, img_shape=size, pad_shape=size, padding_size=[0] * 4)

    @torch.no_grad()
    def ours() -> list[Tensor]:
        return [model.slide_inference(image, [dict(meta)])]

    @torch.no_grad()
    def host() -> list[Tensor]:
        return [EncoderDecoder.slide_inference(model, image, [dict(meta)])]

    return ours, host


BENCHMARKS = [OpBenchmark('windows', SHAPE, _make_slide)]
