"""A training step and a prediction against Hugging Face's model, where it is installed."""

import importlib.util
from typing import Any

import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run
from mmseg_ext.convert.oneformer import convert
from mmseg_ext.layers.sizes import Size
from mmseg_ext.papers.oneformer.targets import targets_of
from mmseg_ext.papers.oneformer.text import image_texts, padded_ids, task_ids
from tests.oracles.oneformer import NAMES, image_of_blocks, without_dropout

K, Q, CONTEXT = len(NAMES), 150, 16
STAGES = ['stage1', 'stage2', 'stage3', 'stage4']


def models(device: torch.device) -> tuple[Any, Any]:
    """Both models on ResNet-50, with the same weights and without dropout."""
    import transformers

    init_default_scope('mmseg')
    config = transformers.OneFormerConfig(
        backbone_config=transformers.ResNetConfig(out_features=STAGES),
        num_labels=K,
        is_training=True,
        dropout=0.0,
    )
    theirs = transformers.OneFormerForUniversalSegmentation(config).to(device)
    head = dict(type='OneFormerHead', in_channels=[256, 512, 1024, 2048], num_classes=K)
    backbone = dict(type='ResNet', depth=50)
    ours: Any = MODELS.build(dict(type='OneFormer', backbone=backbone, decode_head=head))
    ours.load_state_dict(convert(theirs.state_dict()))
    ours.dataset_meta = dict(classes=NAMES)
    return without_dropout(ours.to(device)), without_dropout(theirs)


def make_step(device: torch.device, size: Size = (512, 1024)) -> tuple[Run, Run]:
    """The losses of an image with 20 objects; they differ by the random points of the masks."""
    ours, theirs = (model.train() for model in models(device))
    images = torch.randn(1, 3, *size, device=device)
    sample = image_of_blocks(size, device)
    targets = targets_of(sample, ours.decode_head.draws)
    texts = padded_ids(image_texts('panoptic', targets.labels, NAMES, Q - CONTEXT))[None]
    labels = torch.tensor(targets.labels, device=device)

    def backward(model: nn.Module, loss: Tensor) -> list[Tensor]:
        model.zero_grad()
        loss.backward()
        return [loss.detach().reshape(())]

    def run_theirs() -> list[Tensor]:
        result = theirs(
            images,
            task_inputs=task_ids(['panoptic']).to(device),
            text_inputs=texts.to(device),
            mask_labels=[targets.masks(size).float()],
            class_labels=[labels],
        )
        return backward(theirs, result.loss)

    return lambda: backward(ours, sum(ours.loss(images, [sample]).values())), run_theirs


def make_prediction(device: torch.device, size: Size = (512, 1024)) -> tuple[Run, Run]:
    """The scores of the classes at the size of the image."""
    ours, theirs = (model.eval() for model in models(device))
    theirs.model.is_training = False
    images = torch.randn(1, 3, *size, device=device)

    @torch.no_grad()
    def run_theirs() -> list[Tensor]:
        result = theirs(images, task_inputs=task_ids(['semantic']).to(device))
        probs = result.class_queries_logits.softmax(2)[..., :-1]
        masks = nn.functional.interpolate(result.masks_queries_logits, size, mode='bilinear')
        return [torch.einsum('nqk,nqhw->nkhw', probs, masks.sigmoid())[0]]

    @torch.no_grad()
    def run_ours() -> list[Tensor]:
        return [ours.predict(images)[0].seg_logits.data.exp()]

    return run_ours, run_theirs


BENCHMARKS = []
if importlib.util.find_spec('transformers') is not None:
    BENCHMARKS = [
        OpBenchmark('oneformer_hf_step', 'R50, 1x3x512x1024', make_step),
        OpBenchmark('oneformer_hf_prediction', 'R50, 1x3x512x1024', make_prediction),
    ]
