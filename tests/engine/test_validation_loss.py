"""The loss of what validation predicts."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.models.segmentors import CascadeEncoderDecoder
from mmseg.structures import SegDataSample

from mmseg_ext.engine import validation_loss
from mmseg_ext.engine.validation_loss import (
    ValidationLossHook,
    predicting_part,
    prediction_loss,
    validated_terms,
)
from tests.inference.tiny_explainer import model_config
from tests.tiny import CONFIG_DIR, make_batch, tiny

TERMS = {  # of a training step, which the loss of a prediction has too
    'danet/hrnet18s_streets': ['decode.pam_cam.loss_ce'],
    'dsrl/hrnet18s_streets': ['decode.loss_ce'],
    'fcn/hrnet18s_streets': ['decode.loss_ce'],
    'gscnn/r18_streets': ['decode.loss_ce'],
    'hmsa/hrnet18s_ocr_streets': ['decode.loss_rmi'],
    'magnet/hrnet18s_ocr_streets': ['loss_ohem'],
    'pixel_contrast/hrnet18s_streets': ['decode.loss_ce'],
}


@pytest.mark.parametrize('name', TERMS)
def test_every_paper_has_a_loss_beside_the_same_terms_of_the_training(name):
    model = tiny(CONFIG_DIR / f'{name}.py')
    batch = make_batch(model, size=(64, 96))
    assert validated_terms(model.train(), model.loss(*batch)) == TERMS[name]
    with torch.no_grad():
        sample = model.eval().predict(*make_batch(model, size=(64, 96)))[0]
    owner, _ = predicting_part(model)
    assert torch.tensor(prediction_loss(owner, sample)).isfinite()


def test_the_loss_is_that_of_the_scored_logits():
    model = tiny(CONFIG_DIR / 'fcn/hrnet18s_streets.py').eval()
    images, samples = make_batch(model, ignored=0.5)
    with torch.no_grad():
        sample = model.predict(images, samples)[1]
    label = sample.gt_sem_seg.data
    wanted = F.cross_entropy(sample.seg_logits.data[None], label, ignore_index=255)
    owner, prefix = predicting_part(model)
    assert prediction_loss(owner, sample) == pytest.approx(wanted.item(), rel=1e-5)
    assert prefix == 'decode.'


def test_the_last_head_of_a_cascade_has_the_loss():
    head = dict(model_config().decode_head)
    backbone = dict(type='NeighbourBackbone')
    model = CascadeEncoderDecoder(num_stages=2, backbone=backbone, decode_head=[head, head])
    assert predicting_part(model) == (model.decode_head[1], 'decode_1.')
    assert validated_terms(model, dict.fromkeys(['decode_0.loss_ce', 'decode_1.loss_ce'])) == [
        'decode_1.loss_ce'
    ]


def test_two_classes_in_one_channel_are_scored_as_probabilities():
    ce = dict(type='CrossEntropyLoss', use_sigmoid=True)
    classes = dict(num_classes=2, out_channels=1, threshold=0.3)
    head = FCNHead(in_channels=4, channels=4, loss_decode=ce, **classes)
    logits = torch.randn(1, 4, 6)
    label = torch.randint(2, (1, 4, 6))
    sample = SegDataSample(
        seg_logits=PixelData(data=logits.sigmoid()), gt_sem_seg=PixelData(data=label)
    )
    wanted = F.binary_cross_entropy_with_logits(logits, label.float())
    assert prediction_loss(head, sample) == pytest.approx(wanted.item(), rel=1e-4)


def test_images_that_fill_up_the_last_round_of_the_processes_do_not_count(monkeypatch):
    hook, scores = ValidationLossHook(), {}
    runner = SimpleNamespace(val_dataloader=SimpleNamespace(dataset=range(5)))
    parts = [[1.0, 3.0, 5.0], [2.0, 4.0, 1.0]]  # the last one is the first image again
    monkeypatch.setattr(validation_loss, 'all_gather_object', lambda losses: parts)
    hook.after_val_epoch(runner, scores)
    assert scores == {'val_loss': 3.0}


def test_predictions_without_logits_have_no_loss():
    hook, scores = ValidationLossHook(), {'mIoU': 1.0}
    model = tiny(CONFIG_DIR / 'magnet/hrnet18s_ocr_streets.py')
    runner = SimpleNamespace(model=model, val_dataloader=SimpleNamespace(dataset=range(1)))
    label = PixelData(data=torch.zeros(1, 4, 4))
    hook.after_val_iter(runner, 0, outputs=[SegDataSample(pred_sem_seg=label, gt_sem_seg=label)])
    hook.after_val_epoch(runner, scores)
    assert scores == {'mIoU': 1.0}
