"""OneFormer against Hugging Face's model with the same weights, as a black box."""

import os
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.convert import convert, converters, read_weights
from mmseg_ext.papers.oneformer.attention import Attention
from mmseg_ext.papers.oneformer.decoder import mask_logits
from mmseg_ext.papers.oneformer.targets import Targets, semantic_targets
from mmseg_ext.papers.oneformer.text import image_texts, padded_ids, task_ids

os.environ['HF_HUB_OFFLINE'] = '1'
transformers = pytest.importorskip('transformers', reason='transformers is not installed')

K, Q, C, CONTEXT = 5, 20, 64, 4
SIZE = (96, 128)
STAGES = ['stage1', 'stage2', 'stage3', 'stage4']
NAMES = ['road', 'traffic light', 'car', 'sky', 'person']
BACKBONES: dict[str, tuple[str, dict, dict, list[int]]] = {
    'ResNet': (
        'ResNetConfig',
        dict(embedding_size=8, hidden_sizes=[32, 64, 128, 256], depths=[3, 4, 6, 3]),
        dict(depth=50, base_channels=8, stem_channels=8),
        [32, 64, 128, 256],
    ),
    'SwinTransformer': (
        'SwinConfig',
        dict(
            embed_dim=8,
            depths=[2, 2, 1, 1],
            num_heads=[1, 2, 2, 2],
            window_size=4,
            drop_path_rate=0.0,
        ),
        dict(
            embed_dims=8,
            depths=(2, 2, 1, 1),
            num_heads=(1, 2, 2, 2),
            window_size=4,
            drop_path_rate=0.0,
        ),
        [8, 16, 32, 64],
    ),
    'ConvNeXt': (
        'ConvNextConfig',
        dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
        dict(depths=(1, 1, 1, 1), channels=(8, 16, 24, 32)),
        [8, 16, 24, 32],
    ),
}


class Pair(NamedTuple):
    """Both models, and the weights as Hugging Face saves them."""

    ours: Any
    theirs: Any
    saved: dict[str, Tensor]


def hf_model(kind: str, options: dict) -> nn.Module:
    config = transformers.OneFormerConfig(
        backbone_config=getattr(transformers, kind)(**options, out_features=STAGES),
        num_labels=K,
        num_queries=Q,
        is_training=True,
        train_num_points=64,
        hidden_dim=C,
        conv_dim=C,
        mask_dim=C,
        encoder_layers=2,
        decoder_layers=4,
        dim_feedforward=96,
        encoder_feedforward_dim=80,
        num_attention_heads=4,
        text_encoder_width=C,
        text_encoder_num_layers=1,
        text_encoder_context_length=77,
        text_encoder_n_ctx=CONTEXT,
        dropout=0.0,  # transformers 5.24 drops values in evaluation too
    )
    model = transformers.OneFormerForUniversalSegmentation(config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    for name, buffer in model.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_(0, 0.1)
        elif name.endswith('running_var'):
            buffer.uniform_(0.5, 1.5)
    return without_dropout(model)


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, Attention | nn.MultiheadAttention):
            module.dropout = 0.0
    return model


def our_model(kind: str, options: dict, widths: list[int]) -> nn.Module:
    head = dict(
        type='OneFormerHead',
        in_channels=widths,
        num_classes=K,
        channels=C,
        num_queries=Q,
        num_heads=4,
        pixel_layers=2,
        pixel_hidden=80,
        num_layers=3,
        hidden=96,
        num_context=CONTEXT,
        text_width=C,
        text_layers=1,
        num_points=64,
    )
    backbone = dict(options, type=kind)
    return without_dropout(
        MODELS.build(dict(type='OneFormer', backbone=backbone, decode_head=head))
    )


@pytest.fixture(scope='module', params=BACKBONES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    init_default_scope('mmseg')
    theirs_kind, theirs_options, ours_options, widths = BACKBONES[request.param]
    torch.manual_seed(0)
    theirs = hf_model(theirs_kind, theirs_options)
    folder: Path = tmp_path_factory.mktemp('hf')
    theirs.save_pretrained(folder)
    saved = read_weights(folder / 'model.safetensors')
    ours = our_model(request.param, ours_options, widths)
    ours.load_state_dict(convert('oneformer', saved))
    return Pair(ours, theirs, saved)


@torch.no_grad()
def test_the_same_weights_give_the_same_outputs(pair: Pair) -> None:
    ours, theirs = pair.ours.eval(), pair.theirs.eval()
    theirs.model.is_training = False
    images, tasks = torch.randn(2, 3, *SIZE), ['semantic', 'panoptic']
    expected = theirs(images, task_inputs=task_ids(tasks))
    decoded = ours.decode_head.run(ours.extract_feat(images), tasks)
    logits, embedding = decoded.predictions[-1]
    masks = mask_logits(embedding, decoded.mask_features)
    for found, reference in (
        (logits, expected.class_queries_logits),
        (masks, expected.masks_queries_logits),
    ):
        assert (found - reference).abs().max() <= 1e-4 * reference.std()


def same_points(*shape: Any, real: Any = torch.rand, **kwargs: Any) -> Tensor:
    """Random numbers; the points of an axis depend on their number only."""
    sizes = shape if isinstance(shape[0], int) else tuple(shape[0])
    if sizes[-1] != 2:
        return real(*shape, **kwargs)
    points = real(*sizes[-2:], generator=torch.Generator().manual_seed(sizes[-2]))
    return points.expand(sizes).contiguous()


def labelled(images: Tensor) -> tuple[list[SegDataSample], list[Targets]]:
    """Samples with blocks of classes and a void part; the second image has two classes."""
    labels = torch.randint(0, K, (2, 1, 12, 16)).repeat_interleave(8, 2).repeat_interleave(8, 3)
    labels[1] %= 2
    labels[1, :, :40] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    return samples, [semantic_targets(label[0]) for label in labels]


def test_losses_and_gradients_are_the_same(pair: Pair) -> None:
    """The vectors of the texts are given: those of transformers 5.24 see later tokens too."""
    ours, theirs = pair.ours.train(), pair.theirs.train()
    theirs.model.is_training = True
    for model in (ours, theirs):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        model.zero_grad()
    images = torch.randn(2, 3, *SIZE)
    samples, targets = labelled(images)
    texts = [image_texts('semantic', t.labels, NAMES, Q - CONTEXT) for t in targets]
    with mock.patch('torch.rand', same_points):
        expected = theirs(
            images,
            task_inputs=task_ids(['semantic'] * 2),
            text_inputs=torch.stack([padded_ids(rows) for rows in texts]),
            mask_labels=[t.masks(SIZE).float() for t in targets],
            class_labels=[torch.tensor(t.labels) for t in targets],
        )
        vectors = expected.text_queries.detach()
        with mock.patch.object(ours.decode_head, 'text_vectors', lambda *_: vectors):
            losses = ours.loss(images, samples)
    total = sum(losses.values())
    torch.testing.assert_close(total, expected.loss[0], rtol=1e-5, atol=0)
    total.backward()
    expected.loss.backward()
    parameters = {n: p for n, p in theirs.named_parameters() if p.grad is not None}
    compared = compare_gradients(ours, parameters, theirs, pair)
    assert compared > 150


def compare_gradients(ours: nn.Module, grads: dict[str, Tensor], theirs: Any, pair: Pair) -> int:
    """Gradients of the head, through the converter as the weights; their number."""
    named = {
        name: grads[name].grad if name in grads else torch.zeros_like(parameter)
        for name, parameter in theirs.named_parameters()
        if 'pixel_level_module.encoder' not in name
    }
    expected = convert('oneformer', named)
    count = 0
    for name, parameter in ours.named_parameters():
        if name not in expected or parameter.grad is None:
            continue  # the backbone, the text branch, and the bias that cannot learn
        error = (parameter.grad - expected[name]).norm()
        assert error <= 1e-3 * expected[name].norm() + 1e-6, name
        count += 1
    return count


def test_weights_go_back_to_their_names(pair: Pair) -> None:
    ours = pair.ours.state_dict()
    theirs = convert('oneformer_to_hf', ours)
    unused = {name for name in pair.saved if '.encoder.' in name and '.layernorm.' in name}
    unused = {name for name in unused if 'layers' not in name and 'embeddings' not in name}
    assert theirs.keys() == pair.saved.keys() - unused
    for name, tensor in theirs.items():
        assert torch.equal(tensor, pair.saved[name].to(tensor)), name
    released = convert('oneformer_to_released', ours)
    again = convert('oneformer', released)
    assert again.keys() == ours.keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in again.items())


def test_both_directions_have_a_name() -> None:
    assert {'oneformer', 'oneformer_to_hf', 'oneformer_to_released'} <= set(converters())
