"""Released names of PANet (ShuLiu1993/PANet) to those of this package."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .renaming import rename

EPS = 1e-5  # of our batch norms
Pattern = tuple[str, str]


def _conv_norm(old: str, new: str) -> list[Pattern]:
    """Patterns from a convolution and a group norm of a sequence to a ``ConvModule``."""
    return [(rf'{old}\.0\.', f'{new}.conv.'), (rf'{old}\.1\.', f'{new}.gn.')]


BODY = r'Conv_Body\.'
BACKBONE: list[Pattern] = [(rf'{BODY}conv_body\.res1\.', 'backbone.')]
BACKBONE += [(rf'{BODY}conv_body\.res{i + 1}\.', f'backbone.layer{i}.') for i in range(1, 5)]
NECK = _conv_norm(rf'{BODY}conv_top', 'neck.lateral_convs.3')
for i in range(3):  # laterals and outputs are listed from coarse to fine
    lateral = rf'{BODY}topdown_lateral_modules\.{i}\.conv_lateral'
    NECK += _conv_norm(lateral, f'neck.lateral_convs.{2 - i}')
    NECK += _conv_norm(rf'{BODY}panet_buttomup_conv1_modules\.{i}', f'neck.downsample_convs.{i}')
    NECK += _conv_norm(rf'{BODY}panet_buttomup_conv2_modules\.{i}', f'neck.pafpn_convs.{i}')
for i in range(4):
    NECK += _conv_norm(rf'{BODY}posthoc_modules\.{i}', f'neck.fpn_convs.{3 - i}')

RPN: list[Pattern] = [
    (rf'RPN\.FPN_RPN_{old}\.', f'decode_head.rpn.{new}.')
    for old, new in (('conv', 'conv'), ('cls_score', 'objectness'), ('bbox_pred', 'deltas'))
]
BOX = 'decode_head.box_head.'
BOX_HEAD: list[Pattern] = [
    (r'Box_Head\.conv1_head\.(\d)\.', rf'{BOX}levels.\1.'),
    (r'Box_Head\.fc1\.(\d)\.0\.', rf'{BOX}levels.\1.1.'),  # ours flattens first
    (r'Box_Head\.fc1\.(\d)\.1\.', rf'{BOX}levels.\1.2.'),
    (r'Box_Head\.fc\.', f'{BOX}fc.0.'),
    (r'Box_Head\.fc2\.', f'{BOX}fc.'),
    (r'Box_Outs\.cls_score\.', f'{BOX}classify.'),
    (r'Box_Outs\.bbox_pred\.', f'{BOX}regress.'),
]
MASK = 'decode_head.mask_head.'
MASK_HEAD: list[Pattern] = [
    (r'Mask_Head\.mask_conv1\.(\d)\.', rf'{MASK}levels.\1.'),
    (r'Mask_Head\.mask_conv4\.', f'{MASK}main_conv.'),
    (r'Mask_Head\.mask_conv4_fc\.', f'{MASK}fc_branch.0.'),
    (r'Mask_Head\.mask_conv5_fc\.', f'{MASK}fc_branch.1.'),
    (r'Mask_Head\.mask_fc\.0\.', f'{MASK}fc_branch.3.'),
    (r'Mask_Head\.upconv\.', f'{MASK}upsample.'),
    (r'Mask_Outs\.classify\.', f'{MASK}classify.'),
]
for i in range(3):  # sequences of convolution, norm and ReLU
    for j in range(2):
        BOX_HEAD.append((rf'Box_Head\.convs\.{3 * i + j}\.', f'{BOX}convs.{i}.{j}.'))
        MASK_HEAD.append((rf'Mask_Head\.conv_fcn\.{3 * i + j}\.', f'{MASK}convs.{i}.{j}.'))

# Rows of a class in the outputs, whose first class is the background as released and last in ours
CLASS_ROWS = {f'{BOX}classify.': 1, f'{BOX}regress.': 4, f'{MASK}classify.': 1}
AFFINE = re.compile(r'backbone\..*(bn\d|downsample\.1)\.weight')


def convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``PANetInstanceSegmentor`` on a ResNet of Caffe's form.

    The released norms of the backbone are a weight and a bias for each channel. They become batch
    norms whose statistics change nothing.
    """
    weights = rename(state_dict, [*BACKBONE, *NECK, *RPN, *BOX_HEAD, *MASK_HEAD])
    for name, tensor in list(weights.items()):
        for prefix, rows in CLASS_ROWS.items():
            if name.startswith(prefix):
                weights[name] = tensor.roll(-rows, 0)
        if AFFINE.fullmatch(name):
            norm = name.removesuffix('weight')
            weights[f'{norm}running_mean'] = torch.zeros_like(tensor)
            weights[f'{norm}running_var'] = torch.full_like(tensor, 1 - EPS)
    return weights
