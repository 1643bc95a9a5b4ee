"""OCRNetHead against the host's cascade with the same weights."""

import pytest
import torch
import torch.nn.functional as F
from mmseg.models.decode_heads import OCRHead
from torch import Tensor

from mmseg_ext.baselines import OCRNetHead

LEVELS = dict(in_channels=[4, 8], in_index=[0, 1])


@pytest.fixture(scope='module')
def head() -> OCRNetHead:
    head = OCRNetHead(**LEVELS, num_classes=5, channels=16, ocr_channels=8)
    head.init_weights()
    return head.eval()


@pytest.fixture
def levels() -> list[Tensor]:
    return [torch.randn(2, 4, 14, 18), torch.randn(2, 8, 7, 9)]


@torch.no_grad()
def test_object_attention_equals_the_hosts(head: OCRNetHead, levels: list[Tensor]) -> None:
    host = OCRHead(
        ocr_channels=8,
        num_classes=5,
        channels=16,
        norm_cfg=dict(type='BN'),
        input_transform='resize_concat',
        **LEVELS,
    ).eval()
    shared = {k: v for k, v in head.state_dict().items() if k in host.state_dict()}
    shared.pop('bottleneck.conv.bias', None)
    host.load_state_dict(shared, strict=False)
    host.bottleneck.bn.running_mean -= head.bottleneck.conv.bias  # the host's conv has no bias
    head.training = True  # for the auxiliary logits alone
    logits, aux = head(levels)
    head.training = False
    torch.testing.assert_close(logits, host(levels, aux), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_soft_regions_equal_the_conv_on_the_concatenation(
    head: OCRNetHead, levels: list[Tensor]
) -> None:
    second = F.interpolate(levels[1], levels[0].shape[2:], mode='bilinear')
    plain = head.aux_seg(head.aux_conv(torch.cat([levels[0], second], dim=1)))
    torch.testing.assert_close(head._soft_regions(levels), plain, rtol=1e-5, atol=1e-5)


def test_one_number_of_channels_is_refused_with_the_line_to_write() -> None:
    with pytest.raises(ValueError, match='leave both to model.levels'):
        OCRNetHead(in_channels=2048, num_classes=19)
