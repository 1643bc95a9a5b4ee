"""Gated-SCNN: gates, the pyramid, edges of labels, boundary scores, losses, the network."""

from typing import Any

import torch
from mmseg.registry import MODELS

from mmseg_ext.evaluation.boundary_f_score import boundary_f_scores, radius_in_pixels
from mmseg_ext.losses import DualTaskLoss, ImageWeightedCELoss
from mmseg_ext.losses.image_weighted_ce import rarity_weights
from mmseg_ext.papers.gscnn import EdgePyramid, GatedConv, class_edges
from mmseg_ext.papers.gscnn.edges import balanced_bce
from tests.parity.case import Case, Kind, Results, difference_to_maximum, load

BN = dict(type='BN')


def run_gated_conv(case: Case) -> Results:
    h, x, side = case.hyper, case.inputs['x'], case.inputs['gate']
    module = GatedConv(h['in_channels'], h['out_channels'], norm_cfg=BN)
    load(module, case, paper='gscnn', prefix='gate1.', ours='decode_head.shape.gated.0.')
    module.train(case.meta['mode'] == 'train')
    gate = module.gate(x, side)
    return dict(y=module(x, gate), alpha=gate), {}


def run_aspp(case: Case) -> Results:
    h, x = case.hyper, case.inputs['x']
    pyramid = EdgePyramid(h['in_dim'], h['reduction_dim'], dilations=h['dilations'], norm_cfg=BN)
    load(pyramid, case, paper='gscnn', prefix='aspp.', ours='decode_head.pyramid.')
    branches = pyramid.branches(x, case.inputs['edge'])
    size = x.shape[2:]
    return dict(y=torch.cat([branch.expand(-1, -1, *size) for branch in branches], 1)), {}


def run_edge_labels(case: Case) -> Results:
    h = case.hyper
    options = dict(radius=h['radius'], ignore_index=h['ignore_index'])
    both = {
        name: class_edges(case.inputs['labels'], h['num_classes'], skip_class0=skip, **options)
        for name, skip in (('edge', True), ('edge_all', False))
    }
    return {name: edges[:, None].byte() for name, edges in both.items()}, {}


def run_boundary_fscore(case: Case) -> Results:
    h, pred, label = case.hyper, case.inputs['pred'].numpy(), case.inputs['gt'].numpy()
    radii = [radius_in_pixels(t, label.shape[1:]) for t in h['thresholds']]
    scores = torch.stack(
        [
            torch.from_numpy(boundary_f_scores(*pair, h['num_classes'], radii, h['ignore_index']))
            for pair in zip(pred, label, strict=True)
        ]
    )  # (N, T, K), NaN where both are empty
    counted = torch.ones_like(scores) if h['both_empty'] == 'one' else scores.isnan().logical_not()
    total = scores.nan_to_num(1.0 if h['both_empty'] == 'one' else 0.0).sum(0)
    count = counted.double().sum(0)
    assert radii == h['radius_px']
    return dict(f_sum=total, count=count, f_mean=(total / count).nanmean(1)), {}


def run_losses(case: Case) -> Results:
    h = case.hyper
    logits, edge = (case.inputs[name].requires_grad_() for name in ('logits', 'edge'))
    label, ignore = case.inputs['labels'], h['ignore_index']
    by_image = ImageWeightedCELoss(upper_bound=h['upper_bound'], reduction=h['image_reduction'])
    dual = DualTaskLoss(temperature=h['tau'], spatial_grad=h['spatial_grad'])
    attended = label.masked_fill(edge.detach()[:, 0] <= h['edge_threshold'], ignore)
    losses: dict[str, Any] = dict(
        seg_loss=by_image(logits, label, ignore_index=ignore),
        edge_loss=h['edge_bce_factor'] * balanced_bce(edge, case.inputs['edge_gt'] == 1),
        att_loss=by_image(logits, attended, ignore_index=ignore),
        dual_loss=dual(logits, label, ignore_index=ignore, uniform=case.inputs['u']),
    )
    of = dict(logits=logits, edge=edge)
    grads = {}
    for name in case.grads:
        loss, _, source = name.rpartition('_')
        (grads[name],) = torch.autograd.grad(losses[loss], of[source], retain_graph=True)
    classes = h['num_classes']
    target = torch.where(
        (label >= 0) & (label < classes) & (label != ignore), label, classes
    ).long()
    weights = rarity_weights(target, classes, h['upper_bound'])
    weights[(target == classes).all(2).all(1)] = 0  # undefined as released
    return losses | dict(class_weights=weights), grads


def run_whole(case: Case) -> Results:
    h, image = case.hyper, case.inputs['img']
    low, high = h['canny']['low'], h['canny']['high']
    model = MODELS.build(
        dict(
            type='GSCNN',
            backbone=dict(type='WiderResNetA2', out_indices=tuple(range(1, 8))),
            decode_head=dict(
                type='GSCNNHead', num_classes=h['num_classes'], in_index=(0, 1, 2, 3, 6)
            ),
            canny_input=h['canny']['input'],
            canny_thresholds=(low, high),
            canny_value=255.0,
            test_cfg=dict(mode='whole'),
        )
    )
    load(model, case, paper='gscnn')
    head = model.decode_head
    seen: dict[str, Any] = {}
    with torch.no_grad():
        *levels, canny = model.extract_feat(image)
        assert torch.equal(canny, case.inputs['canny'].float())
        logits, _ = head.run([*levels, canny], seen)
    found = {f'mod{i}': level for i, level in enumerate(levels, 1)}
    found |= {f'gate{i}': seen[f'shape_{i}'] for i in (1, 2, 3)}
    found |= dict(
        edge=seen['edge'],
        acts=seen['attention'],
        bot_aspp=seen['pyramid'],
        seg=head.predict_by_feat(logits, [dict(img_shape=image.shape[2:])]),
    )
    taps = h['taps'].items()
    return {name: found[name][:, ::c, ::s, ::s] for name, (c, s) in taps}, {}


def kind(run: Any, values: float, grads: float = 0.0) -> Kind:
    return Kind(run, values, grads, difference_to_maximum, difference_to_maximum)


KINDS = {
    'gated_conv': kind(run_gated_conv, 1e-5),
    'aspp': kind(run_aspp, 1e-5),
    'edge_labels': kind(run_edge_labels, 0.0),
    'boundary_fscore': kind(run_boundary_fscore, 1e-6),
    'losses': kind(run_losses, 1e-5, 1e-4),
    'whole': kind(run_whole, 1e-4),
}
