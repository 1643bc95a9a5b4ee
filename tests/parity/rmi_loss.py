"""HMSA's RMI loss."""

from mmseg_ext.losses import RMILoss, pixel_sum_bce, region_mutual_information
from tests.parity.case import Case, Kind, Results, difference_to_maximum


def run_rmi_loss(case: Case) -> Results:
    h = case.hyper
    mix = h['lambda_way'] == 1
    region = dict(
        radius=h['radius'],
        pool={0: 'max', 1: 'avg', 2: 'interp'}[h['pool_way']],
        pool_stride=h['pool_stride'],
    )
    rmi_weight = 1 - h['weight_lambda'] if mix else h['weight_lambda']
    loss = RMILoss(**region, rmi_weight=rmi_weight, combine='mix' if mix else 'add')
    logits = case.inputs['logits'].requires_grad_()
    label = case.inputs['labels'].long()
    total = loss(logits, label, ignore_index=h['ignore_index'])
    total.backward()
    parts = dict(
        total=total,
        bce=pixel_sum_bce(logits, label, ignore_index=h['ignore_index']),
        rmi=region_mutual_information(logits, label, ignore_index=h['ignore_index'], **region),
    )
    return parts, dict(logits=logits.grad)


KINDS = {'loss': Kind(run_rmi_loss, 1e-5, 1e-4, difference_to_maximum)}
