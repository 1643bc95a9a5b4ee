"""Names of OneFormer: released (SHI-Labs/OneFormer), of Hugging Face, and ours, in all directions.

Backbones: ResNet, Swin and ConvNeXt.
"""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import UserError
from .renaming import rename

NO_OBJECT_WEIGHT = 0.1  # of the released buffer empty_weight, which ours computes

# Ours without "decode_head.", released, Hugging Face; # is a number.
HF_PIXEL = 'model.pixel_level_module.decoder.'
PIXEL = tuple(
    (f'pixel_decoder.{ours}', f'sem_seg_head.pixel_decoder.{released}', f'{HF_PIXEL}{hf}')
    for ours, released, hf in (
        ('input_proj.#.', 'input_proj.#.', 'input_projections.#.'),
        ('level_embed', 'transformer.level_embed', 'level_embed'),
        *(
            (
                f'layers.#.{ours}',
                f'transformer.encoder.layers.#.{released}',
                f'encoder.layers.#.{hf}',
            )
            for ours, released, hf in (
                ('self_attn.', 'self_attn.', 'self_attn.'),
                ('norm.', 'norm1.', 'self_attn_layer_norm.'),
                ('ffn.linear1.', 'linear1.', 'fc1.'),
                ('ffn.linear2.', 'linear2.', 'fc2.'),
                ('ffn.norm.', 'norm2.', 'final_layer_norm.'),
            )
        ),
        ('lateral.0.weight', 'adapter_1.weight', 'adapter_1.0.weight'),
        ('lateral.1.', 'adapter_1.norm.', 'adapter_1.1.'),
        ('output.0.weight', 'layer_1.weight', 'layer_1.0.weight'),
        ('output.1.', 'layer_1.norm.', 'layer_1.1.'),
        ('mask_features.', 'mask_features.', 'mask_projection.'),
    )
)
QUERY_TRANSFORMER = tuple(
    (
        f'query_transformer.{ours}',
        f'class_transformer.decoder.{released}',
        f'decoder.query_transformer.decoder.{released}',
    )
    for ours, released in (
        ('layers.#.self_attn.', 'layers.#.self_attn.'),
        ('layers.#.norm1.', 'layers.#.norm1.'),
        ('layers.#.cross_attn.', 'layers.#.multihead_attn.'),
        ('layers.#.norm2.', 'layers.#.norm2.'),
        ('layers.#.ffn.linear1.', 'layers.#.linear1.'),
        ('layers.#.ffn.linear2.', 'layers.#.linear2.'),
        ('layers.#.ffn.norm.', 'layers.#.norm3.'),
        ('norm.', 'norm.'),
    )
)
DECODER = tuple(
    (f'mask_decoder.{ours}', f'sem_seg_head.predictor.{released}', f'model.transformer_module.{hf}')
    for ours, released, hf in (
        ('query_embed.', 'query_embed.', 'queries_embedder.'),
        ('level_embed.', 'level_embed.', 'level_embed.'),
        ('query_transformer.conv.', 'class_input_proj.', 'decoder.query_input_projection.'),
        *QUERY_TRANSFORMER,
        *(
            (f'layers.#.{ours}', f'transformer_{released}', f'decoder.layers.#.{hf}')
            for ours, released, hf in (
                (
                    'cross_attn.',
                    'cross_attention_layers.#.multihead_attn.',
                    'cross_attn.multihead_attn.',
                ),
                ('norm1.', 'cross_attention_layers.#.norm.', 'cross_attn.norm.'),
                ('self_attn.', 'self_attention_layers.#.self_attn.', 'self_attn.self_attn.'),
                ('norm2.', 'self_attention_layers.#.norm.', 'self_attn.norm.'),
                ('ffn.', 'ffn_layers.#.', 'ffn.'),
            )
        ),
        ('norm.', 'decoder_norm.', 'decoder.decoder_norm.'),
        ('class_embed.', 'class_embed.', 'decoder.class_embed.'),
        ('mask_embed.layers.#.', 'mask_embed.layers.#.', 'decoder.mask_embed.layers.#.0.'),
    )
)
TEXT = (
    ('task_mlp.layers.#.', 'task_mlp.layers.#.', 'model.task_encoder.task_mlp.layers.#.0.'),
    *(
        (f'text_branch.{ours}', released, f'model.text_mapper.{hf}')
        for ours, released, hf in (
            *(
                (f'encoder.{ours}', f'text_encoder.{released}', f'text_encoder.{hf}')
                for ours, released, hf in (
                    ('positional_embedding', 'positional_embedding', 'positional_embedding'),
                    ('token_embedding.', 'token_embedding.', 'token_embedding.'),
                    ('norm.', 'ln_final.', 'ln_final.'),
                    *(
                        (
                            f'layers.#.{ours}',
                            f'transformer.resblocks.#.{released}',
                            f'transformer.layers.#.{hf}',
                        )
                        for ours, released, hf in (
                            ('attn.', 'attn.', 'self_attn.'),
                            ('norm1.', 'ln_1.', 'layer_norm1.'),
                            ('norm2.', 'ln_2.', 'layer_norm2.'),
                            ('mlp.0.', 'mlp.c_fc.', 'mlp.fc1.'),
                            ('mlp.2.', 'mlp.c_proj.', 'mlp.fc2.'),
                        )
                    ),
                )
            ),
            ('projector.layers.#.', 'text_projector.layers.#.', 'text_projector.layers.#.0.'),
            ('context.', 'prompt_ctx.', 'prompt_ctx.'),
        )
    ),
    ('criterion.contrastive.logit_scale', 'criterion.logit_scale', 'criterion.logit_scale'),
)
HEAD = tuple((f'decode_head.{ours}', *others) for ours, *others in (*PIXEL, *DECODER, *TEXT))

HF_BACKBONE = 'model.pixel_level_module.encoder.'
RESNET = tuple(
    (f'backbone.{ours}', f'backbone.{released}', f'{HF_BACKBONE}{hf}')
    for ours, released, hf in (
        ('bn1.', 'stem.conv1.norm.', 'embedder.embedder.normalization.'),
        ('conv1.', 'stem.conv1.', 'embedder.embedder.convolution.'),
        *(
            (
                f'layer{stage}.#.{ours}',
                f'res{stage + 1}.#.{released}',
                f'encoder.stages.{stage - 1}.layers.#.{hf}',
            )
            for stage in (1, 2, 3, 4)
            for ours, released, hf in (
                ('downsample.1.', 'shortcut.norm.', 'shortcut.normalization.'),
                ('downsample.0.', 'shortcut.', 'shortcut.convolution.'),
                *(
                    pair
                    for i in (1, 2, 3)
                    for pair in (
                        (f'bn{i}.', f'conv{i}.norm.', f'layer.{i - 1}.normalization.'),
                        (f'conv{i}.', f'conv{i}.', f'layer.{i - 1}.convolution.'),
                    )
                ),
            )
        ),
    )
)
SWIN = tuple(
    (f'backbone.{ours}', f'backbone.{released}', f'{HF_BACKBONE}{hf}')
    for ours, released, hf in (
        (
            'patch_embed.projection.',
            'patch_embed.proj.',
            'embeddings.patch_embeddings.projection.',
        ),
        ('patch_embed.norm.', 'patch_embed.norm.', 'embeddings.norm.'),
        ('stages.#.downsample.', 'layers.#.downsample.', 'encoder.layers.#.downsample.'),
        *(
            (
                f'stages.#.blocks.#.{ours}',
                f'layers.#.blocks.#.{released}',
                f'encoder.layers.#.blocks.#.{hf}',
            )
            for ours, released, hf in (
                ('norm1.', 'norm1.', 'layernorm_before.'),
                ('attn.w_msa.proj.', 'attn.proj.', 'attention.output.dense.'),
                ('attn.w_msa.', 'attn.', 'attention.self.'),
                ('norm2.', 'norm2.', 'layernorm_after.'),
                ('ffn.layers.0.0.', 'mlp.fc1.', 'intermediate.dense.'),
                ('ffn.layers.1.', 'mlp.fc2.', 'output.dense.'),
            )
        ),
    )
)
CONVNEXT = tuple(
    (f'backbone.{name}', f'backbone.{name}', f'{HF_BACKBONE}{hf}')
    for name, hf in (
        ('downsample_layers.0.0.', 'embeddings.patch_embeddings.'),
        ('downsample_layers.0.1.', 'embeddings.layernorm.'),
        ('downsample_layers.#.#.', 'encoder.stages.#.downsampling_layer.#.'),
        ('stages.#.#.gamma', 'encoder.stages.#.layers.#.layer_scale_parameter'),
        ('stages.#.#.norm.', 'encoder.stages.#.layers.#.layernorm.'),
        ('stages.#.#.', 'encoder.stages.#.layers.#.'),
    )
)
NORMS = tuple(
    (f'backbone.norm{i}.', f'backbone.norm{i}.', f'{HF_BACKBONE}hidden_states_norms.stage{i + 1}.')
    for i in range(4)
)
NAMES = (*HEAD, *RESNET, *SWIN, *CONVNEXT, *NORMS)
OURS, RELEASED, HF = range(3)
# A buffer that ours computes, one that the host computes, and a norm without a use.
UNUSED = re.compile(
    rf'criterion\.empty_weight|.*relative_position_index|{HF_BACKBONE}(swin\.)?layernorm\.'
)
TABLE = 'relative_position_bias_table'
MERGING = re.compile(r'backbone\.(stages|layers)\.\d\.downsample\.(reduction|norm)\.')
# Three matrices at Hugging Face: the prefix, their names, and the name of the joint matrix.
JOINED = (
    (r'(.*\.self_attn\.self_attn\.)', ('q_proj.', 'k_proj.', 'v_proj.'), 'in_proj_'),
    (r'(.*\.attention\.self\.)', ('query.', 'key.', 'value.'), 'qkv.'),
)


def convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``OneFormer`` from released ones, or from those of Hugging Face.

    A released ConvNeXt for ImageNet becomes ``backbone``.
    """
    if any(name.startswith('downsample_layers.') for name in state_dict):
        return _imagenet_convnext(state_dict)
    weights = _without_unused(state_dict)
    if any(name.startswith('model.') for name in weights):
        renamed = _rename(_join(weights), HF, OURS)
    else:  # early files have no segment for the pixel decoder
        early = re.compile(r'sem_seg_head\.(?!pixel_decoder\.|predictor\.)')
        weights = {early.sub('sem_seg_head.pixel_decoder.', n): x for n, x in weights.items()}
        renamed = _rename(weights, RELEASED, OURS)
    return _with_position_index(_merge_order(renamed, to_ours=True))


def _imagenet_convnext(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Backbone from a ConvNeXt for ImageNet, whose levels get norms with weights of 1."""
    classifier = re.compile(r'(norm|head)\.')
    named = {f'backbone.{n}': x for n, x in weights.items() if not classifier.match(n)}
    backbone = _rename(named, RELEASED, OURS)
    for i in range(4):
        width = len(backbone[f'backbone.stages.{i}.0.gamma'])
        backbone[f'backbone.norm{i}.weight'] = torch.ones(width)
        backbone[f'backbone.norm{i}.bias'] = torch.zeros(width)
    return backbone


def to_released(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the released names, from ours."""
    weights = _merge_order(_without_unused(state_dict), to_ours=False)
    return _with_class_weights(_rename(weights, OURS, RELEASED))


def to_hf(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of Hugging Face's files, from ours."""
    weights = _merge_order(_without_unused(state_dict), to_ours=False)
    return _with_class_weights(_split(_rename(weights, OURS, HF)))


OTHER_DIRECTIONS = dict(released=to_released, hf=to_hf)


def _rename(weights: Mapping[str, Tensor], source: int, target: int) -> dict[str, Tensor]:
    return rename(weights, (_pattern(names[source], names[target]) for names in NAMES))


def _pattern(source: str, target: str) -> tuple[str, str]:
    """Regular expression and replacement of two names in which # is a number."""
    numbers = iter(range(1, 1 + target.count('#')))
    return re.escape(source).replace(r'\#', r'(\d+)'), re.sub(
        '#', lambda _: rf'\g<{next(numbers)}>', target
    )


def _without_unused(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: x for name, x in state_dict.items() if not UNUSED.match(name)}


def _with_class_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adds the released buffer of class weights."""
    outputs = [x for name, x in weights.items() if name.endswith('class_embed.bias')]
    if outputs:
        weights['criterion.empty_weight'] = torch.ones(len(outputs[0]))
        weights['criterion.empty_weight'][-1] = NO_OBJECT_WEIGHT
    return weights


def _with_position_index(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adds Swin's buffers with the row of each pair of pixels in the table of positions."""
    for name in [name for name in weights if name.endswith(TABLE)]:
        width = math.isqrt(len(weights[name]))  # 2 * window - 1
        steps = torch.arange((width + 1) // 2)
        y, x = (axis.flatten() for axis in torch.meshgrid(steps, steps, indexing='ij'))
        rows, columns = (axis[:, None] - axis + width // 2 for axis in (y, x))
        weights[name.replace(TABLE, 'relative_position_index')] = rows * width + columns
    return weights


def _merge_order(weights: Mapping[str, Tensor], *, to_ours: bool) -> dict[str, Tensor]:
    """Reorders the inputs of Swin's patch merging, whose four pixels the host orders otherwise."""

    def reorder(x: Tensor) -> Tensor:
        groups = x.unflatten(-1, (4, -1) if to_ours else (-1, 4))
        groups = groups if to_ours else groups.mT
        groups = groups[..., [0, 2, 1, 3], :]
        return (groups.mT if to_ours else groups).flatten(-2)

    return {name: reorder(x) if MERGING.match(name) else x for name, x in weights.items()}


def _join(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Joins the matrices of queries, keys and values."""
    joined = dict(weights)
    for prefix, parts, whole in JOINED:
        pattern = re.compile(prefix + re.escape(parts[0]) + '(.*)')
        for match in filter(None, map(pattern.fullmatch, weights)):
            names = [f'{match[1]}{part}{match[2]}' for part in parts]
            missing = [name for name in names if name not in weights]
            if missing:
                raise UserError(f'the weights lack {missing[0]}: download the checkpoint again')
            tensors = [joined.pop(name) for name in names]
            joined[f'{match[1]}{whole}{match[2]}'] = torch.cat(tensors)
    return joined


def _split(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Splits the matrices that ``_join`` joins."""
    split = dict(weights)
    for prefix, parts, whole in JOINED:
        pattern = re.compile(prefix + re.escape(whole) + '(.*)')
        for match in filter(None, map(pattern.fullmatch, weights)):
            thirds = split.pop(match[0]).chunk(3)
            split |= {
                f'{match[1]}{part}{match[2]}': third.clone()
                for part, third in zip(parts, thirds, strict=True)
            }
    return split
