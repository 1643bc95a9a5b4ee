"""OneFormer: tokens, text branch, targets and texts, head, losses, results, whole network."""

from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.papers.oneformer.criterion import Criterion, ImageTargets
from mmseg_ext.papers.oneformer.decoder import Prediction, mask_logits
from mmseg_ext.papers.oneformer.inference import (
    Settings,
    instances,
    panoptic_segments,
    semantic_scores,
)
from mmseg_ext.papers.oneformer.matching import Weights, assign
from mmseg_ext.papers.oneformer.targets import panoptic_targets
from mmseg_ext.papers.oneformer.text import TASKS, TextBatch, TextBranch, image_texts, padded_ids
from tests.parity.case import Case, Kind, Results, difference, load


def run_tokens(case: Case) -> Results:
    return dict(ids=padded_ids(case.hyper['strings'], case.hyper['max_seq_len'])), {}


def batch_of_ids(ids: Tensor) -> TextBatch:
    """The batch of texts (N, T) whose ids (N, T, 77) are given."""
    different, rows = torch.unique(ids.long().flatten(0, 1), dim=0, return_inverse=True)
    ends = different.argmax(1)
    return TextBatch(different[:, : ends.max() + 1], ends, rows.view(ids.shape[:2]))


def run_text(case: Case) -> Results:
    h = case.hyper
    options = dict(num_context=h['n_ctx'], width=h['width'], num_layers=h['layers'])
    channels = case.outputs['texts'].shape[2]
    branch = TextBranch(channels, **options)
    load(branch, case, paper='oneformer', ours='decode_head.text_branch.')
    batch = batch_of_ids(case.inputs['text_ids'])
    encoded = branch.encoder(batch.ids, batch.ends)[batch.rows].flatten(0, 1)
    return dict(encoded=encoded, texts=branch(batch)), {}


def run_text_list(case: Case) -> Results:
    h, outputs = case.hyper, {}  # type: Any, dict[str, Any]
    pan = case.inputs['pan']
    segments = [
        dict(segment, isthing=segment['category_id'] in h['thing_ids'])
        for segment in h['segments_info']
    ]
    for task in TASKS:
        targets = panoptic_targets(pan, segments, task)
        texts = image_texts(task, targets.labels, h['class_names'], h['num_text_slots'])
        assert texts == case.meta['outputs']['texts'][task]
        label = torch.tensor([*targets.labels, h['ignore_label']])[targets.numbers.long()]
        size = tuple(pan.shape)
        outputs |= {
            f'{task}_classes': np.array(targets.labels, np.int64),
            f'{task}_masks': targets.masks(size).byte(),
            f'{task}_label': label,
        }
    return outputs, {}


def head_cfg(case: Case, in_channels: list[int]) -> dict[str, Any]:
    h = case.hyper
    assert h['conv_dim'] == h['mask_dim'] and h['use_task_norm'] and h['class_dec_layers'] == 2
    return dict(
        type='OneFormerHead',
        in_channels=in_channels,
        num_classes=h['num_classes'],
        channels=h['conv_dim'],
        num_queries=h['num_queries'],
        num_heads=h['num_heads'],
        pixel_layers=h['pixel_decoder_layers'],
        pixel_hidden=h['pixel_decoder_ffn'],
        num_layers=h['decoder_layers_in_network'],
        hidden=h['decoder_ffn'],
        loss_weights=dict(contrastive=0.0),  # no text branch
    )


def run_head(case: Case) -> Results:
    head = MODELS.build(head_cfg(case, case.hyper['backbone_channels']))
    load(head, case, paper='oneformer', ours='decode_head.')
    with torch.no_grad():
        token = head.task_tokens(case.inputs['task_ids'])
        features, maps = head.pixel_decoder([case.inputs[f'res{i}'] for i in (2, 3, 4, 5)])
        decoded = head.mask_decoder(token, features, maps)
    outputs = dict(task_token=token, mask_features=features, contrastive=decoded.queries)
    outputs |= {f'ms{i}': x for i, x in enumerate(maps)}
    predictions = {f'aux{i}_': p for i, p in enumerate(decoded.predictions[:-1])}
    for name, prediction in {'pred_': decoded.predictions[-1], **predictions}.items():
        outputs[f'{name}logits'] = prediction.logits
        outputs[f'{name}masks'] = mask_logits(prediction.embedding, features)
    return outputs, {}


def run_losses(case: Case) -> Results:
    h, inputs = case.hyper, case.inputs
    sets = {name: index for index, name in enumerate(h['sets'])}
    leaves = {f'{name}_{kind}': None for name in sets for kind in ('logits', 'masks')}
    leaves = {name: inputs[name].requires_grad_() for name in [*leaves, 'contrastive', 'texts']}
    criterion = Criterion(
        h['num_classes'],
        num_points=h['num_points'],
        oversample_ratio=h['oversample_ratio'],
        importance_ratio=h['importance_sample_ratio'],
        no_object_weight=h['no_object_weight'],
        weights=Weights(
            h['class_weight'], h['mask_weight'], h['dice_weight'], h['contrastive_weight']
        ),
        temperature=h['temperature'],
    )
    weights = criterion.weights

    def recorded(name: str, kind: str, shape: tuple[int, int], like: Tensor) -> Tensor:
        kind = kind if kind.startswith('match') else f'loss_points_{kind}'
        points = inputs[f'{name}_{kind.replace("match_", "match_points_")}']
        assert points.shape[:2] == shape
        return points

    criterion.points = recorded
    targets = [
        ImageTargets(inputs[f'gt_labels_{b}'], inputs[f'gt_masks_{b}'].bool())
        for b in range(h['batch_size'])
    ]
    outputs: dict[str, Any] = {}
    total = 0
    count = max(sum(len(t.labels) for t in targets), 1)
    for name in sets:
        masks = leaves[f'{name}_masks']
        # Masks instead of features: an embedding that selects one map gives its logits.
        embedding = torch.eye(h['num_queries']).expand(h['batch_size'], -1, -1)
        prediction = Prediction(leaves[f'{name}_logits'], embedding)
        with torch.no_grad():
            costs = criterion.costs([prediction], masks, targets, [name])[0]
        outputs |= {f'{name}_cost_{b}': cost for b, cost in enumerate(costs)}
        losses = criterion.losses_of(
            prediction, masks, targets, assign(costs), torch.tensor(float(count)), name
        )
        suffix = '' if name == 'final' else f'_{name.removeprefix("aux")}'
        for term in ('ce', 'mask', 'dice'):
            total = total + losses[f'loss_{term}']
            outputs[f'loss_{term}{suffix}'] = losses[f'loss_{term}'] / getattr(weights, term)
    contrast = criterion.contrastive(leaves['contrastive'], leaves['texts'])
    total = total + weights.contrastive * contrast
    total.backward()
    outputs |= dict(loss_contrastive=contrast, total_weighted=total)
    grads = {name: leaf.grad for name, leaf in leaves.items()}
    return outputs, grads | dict(logit_scale=criterion.contrastive.logit_scale.grad)


def settings_of(case: Case) -> tuple[Settings, list[int]]:
    h = case.hyper
    settings = Settings(
        object_mask_threshold=h['object_mask_threshold'],
        overlap_threshold=h['overlap_threshold'],
        max_instances=h['topk'],
        things_only=h.get('restrict_instances_to_things', True),
    )
    return settings, h['thing_ids']


def checked_segments(segments: list, case: Case) -> None:
    ours = [{k: getattr(s, k) for k in ('id', 'isthing', 'category_id')} for s in segments]
    assert ours == case.meta['outputs']['segments_info']


def run_post(case: Case) -> Results:
    settings, things = settings_of(case)
    logits, masks = case.inputs['mask_cls'], case.inputs['mask_pred']
    args = logits, masks.__getitem__, (masks.shape[1], masks.shape[2])
    ids, segments = panoptic_segments(*args, things, settings)
    checked_segments(segments, case)
    found = instances(*args, things, settings)
    order = np.lexsort((found.labels, -found.scores))
    return dict(
        sem_seg=semantic_scores(*args),
        pan=ids,
        inst_scores=found.scores[order],
        inst_classes=found.labels[order],
        inst_masks=found.masks[order].byte(),
    ), {}


def run_whole(case: Case) -> Results:
    h = case.hyper
    settings, things = settings_of(case)
    task = h['task'].rpartition(' ')[2]
    model = MODELS.build(
        dict(
            type='OneFormer',
            backbone=dict(type='ResNet', depth=h['depth']),
            decode_head=head_cfg(case, h['backbone_channels']) | dict(thing_classes=things),
            data_preprocessor=dict(
                type='SegDataPreProcessor',
                mean=h['image_mean'],
                std=h['image_std'],
                test_cfg=dict(size_divisor=h['size_divisibility']),
            ),
        )
    )
    load(model, case, paper='oneformer')
    return whole_results(model, case, settings._replace(task='panoptic'), task)


def whole_results(model: nn.Module, case: Case, settings: Settings, task: str) -> Results:
    image = case.inputs['image']
    meta = dict(ori_shape=tuple(case.hyper['output_size']), img_shape=tuple(image.shape[1:]))
    data = dict(inputs=[image], data_samples=[SegDataSample(metainfo=meta)])
    data = model.data_preprocessor(data)
    with torch.no_grad():
        decoded = model.decode_head.run(model.extract_feat(data['inputs']), [task])
        model.test_cfg = ConfigDict(settings._asdict() | dict(mode='whole', task=task))
        (sample,) = model.predict(data['inputs'], data['data_samples'])
        # The recorded panoptic result is made of the predictions for the recorded task.
        model.test_cfg.task = 'panoptic'
        run = model.decode_head.run
        model.decode_head.run = lambda levels, tasks: run(levels, [task])
        (panoptic,) = model.predict(data['inputs'], data['data_samples'])
    segments = panoptic.pred_panoptic_seg.segments_info
    keys = ('id', 'isthing', 'category_id')
    found = [{key: segment[key] for key in keys} for segment in segments]
    assert found == case.meta['outputs']['segments_info']
    logits, embedding = decoded.predictions[-1]
    return dict(
        pred_logits=logits,
        pred_masks=mask_logits(embedding, decoded.mask_features),
        sem_seg=sample.seg_logits.data.exp(),
        pan=panoptic.pred_panoptic_seg.panoptic_seg[0],
    ), {}


def exact(ours: Any, reference: np.ndarray) -> float:
    ours = np.asarray(ours)
    assert ours.shape == reference.shape
    return float((ours != reference).sum())


def by_kind_of_value(ours: Any, reference: np.ndarray) -> float:
    """Whole numbers count as exact: any difference is above every tolerance."""
    is_whole = np.issubdtype(reference.dtype, np.integer)
    return exact(ours, reference) if is_whole else difference(ours, reference)


def nearly_all(ours: Any, reference: np.ndarray) -> float:
    """Difference of 99.9 per cent of the values: a bit of an attention mask may flip at a tie."""
    if reference.ndim < 4:
        return by_kind_of_value(ours, reference)
    errors = np.abs(np.asarray(ours.detach(), np.float64) - reference)
    return float(np.quantile(errors, 0.999) / reference.std())


KINDS = {
    'tokens': Kind(run_tokens, 0.0, value_difference=exact),
    'text_encoder': Kind(run_text, 1e-4),
    'text_list': Kind(run_text_list, 0.0, value_difference=exact),
    'head': Kind(run_head, 1e-4),
    'losses': Kind(run_losses, 1e-4, 1e-4),
    'post_processing': Kind(run_post, 1e-5, value_difference=by_kind_of_value),
    'whole': Kind(run_whole, 1e-3, value_difference=nearly_all),
}
