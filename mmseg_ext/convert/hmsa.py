"""Released names of HMSA and its single-scale OCRNet (NVIDIA/semantic-segmentation)."""

from collections.abc import Mapping

from torch import Tensor

from .renaming import rename

ATTENTION = (
    (r'scale_attn\.conv2\.', 'decode_head.scale_attn.conv_attention.'),
    (r'scale_attn\.conv(\d)\.', r'decode_head.scale_attn.convs.\1.conv.'),
    (r'scale_attn\.bn(\d)\.', r'decode_head.scale_attn.convs.\1.bn.'),
)
OBJECT_ATTENTION = (
    (r'f_pixel\.0\.', 'query_project.0.conv.'),
    (r'f_pixel\.1\.0\.', 'query_project.0.bn.'),
    (r'f_pixel\.2\.', 'query_project.1.conv.'),
    (r'f_pixel\.3\.0\.', 'query_project.1.bn.'),
    (r'f_object\.0\.', 'key_project.0.conv.'),
    (r'f_object\.1\.0\.', 'key_project.0.bn.'),
    (r'f_object\.2\.', 'key_project.1.conv.'),
    (r'f_object\.3\.0\.', 'key_project.1.bn.'),
    (r'f_down\.0\.', 'value_project.conv.'),
    (r'f_down\.1\.0\.', 'value_project.bn.'),
    (r'f_up\.0\.', 'out_project.conv.'),
    (r'f_up\.1\.0\.', 'out_project.bn.'),
)
OCR = (
    (r'conv3x3_ocr\.0\.', 'bottleneck.conv.'),
    (r'conv3x3_ocr\.1\.0\.', 'bottleneck.bn.'),
    (r'aux_head\.0\.', 'aux_conv.conv.'),
    (r'aux_head\.1\.0\.', 'aux_conv.bn.'),
    (r'aux_head\.2\.', 'aux_seg.'),
    (r'cls_head\.', 'conv_seg.'),
    (r'ocr_distri_head\.conv_bn_dropout\.0\.', 'object_context_block.bottleneck.conv.'),
    (r'ocr_distri_head\.conv_bn_dropout\.1\.0\.', 'object_context_block.bottleneck.bn.'),
    *(
        (rf'ocr_distri_head\.object_context_block\.{old}', f'object_context_block.{new}')
        for old, new in OBJECT_ATTENTION
    ),
)


def convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``HMSA``, or of ``EncoderDecoder`` with ``OCRNetHead`` if they have no attention.

    ``HMSA`` loads both; without attention weights its attention keeps its initialisation.
    """
    has_attention = any(name.startswith('scale_attn.') for name in state_dict)
    head = 'decode_head.head.' if has_attention else 'decode_head.'
    ocr = ((rf'ocr\.{old}', head + new) for old, new in OCR)
    return rename(state_dict, ((r'backbone\.', 'backbone.'), *ocr, *ATTENTION))
