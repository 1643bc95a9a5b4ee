"""The host's nearest model of a config: the same network from the host's own classes."""

import inspect
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS

from mmseg_ext.errors import UserError

# By our head, whose levels and width it gets. Other heads stay as they are.
HOST_HEADS: dict[str, dict[str, Any]] = {
    'CPNetHead': dict(type='PSPHead'),
    'DANetHead': dict(type='DAHead', pam_channels=64),
    'FastFCNASPPHead': dict(type='ASPPHead', dilations=(1, 12, 24, 36)),
    'FastFCNEncHead': dict(type='EncHead'),
    'GSCNNHead': dict(type='DepthwiseSeparableASPPHead', c1_channels=48),
    'HANetHead': dict(type='DepthwiseSeparableASPPHead', c1_channels=48),
    'MagNetFPNHead': dict(type='FPNHead', channels=128, feature_strides=[4, 8, 16, 32]),
    'OpensegASPPHead': dict(type='ASPPHead', dilations=(1, 12, 24, 36)),
    'SPNetHead': dict(type='PSPHead'),
}
HOST_BACKBONES = {
    'HRNetExact': 'HRNet',
    'OpensegResNet': 'ResNetV1c',
    'SPNetResNet': 'ResNetV1c',
    'StemResNet': 'ResNetV1c',
}
WIDTH = 512  # of the host's heads where ours takes its own from the levels
NOT_THERE = ('ESPNetV2', 'WiderResNetA2')


def host_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """The config of an ``EncoderDecoder`` of the host's parts, as wide as that of ``model``.

    Heads become their counterparts with cross entropy: HMSA is OCRNet at one scale, DSRL the
    network on full-size images, MagNet its segmentor on the whole image, and where FastFCN's neck
    is, the backbone is dilated instead. Auxiliary heads stay.

    Raises:
        ValueError: the host has no such backbone.
    """
    given = deepcopy(dict(model))
    if 'segmentor' in given:
        given = {**given['segmentor'], 'data_preprocessor': given['data_preprocessor']}
    backbone, head = given['backbone'], _plain_head(given['decode_head'])
    if backbone['type'] in NOT_THERE:
        raise UserError(f'the host has no {backbone["type"]}: name a config by --against')
    if backbone['type'] == 'StemResNet':  # the host's has no level before its stages
        head['in_channels'] = head['in_channels'][1:]
        head['in_index'] = [index - 1 for index in head['in_index'][1:]]
    if given.get('neck', {}).get('type') == 'FastFCNJPU':
        del given['neck']
        backbone.update(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    given['backbone'] = _accepted(backbone, HOST_BACKBONES.get(backbone['type'], backbone['type']))
    given |= dict(type='EncoderDecoder', decode_head=_host_head(head))
    if head['type'].endswith('OCRHead') or head['type'] == 'OCRNetHead':
        given |= dict(type='CascadeEncoderDecoder', num_stages=2, decode_head=_ocrnet(head))
    known = {*inspect.signature(EncoderDecoder.__init__).parameters, 'type', 'num_stages'}
    return {key: value for key, value in given.items() if key in known}


def _plain_head(head: dict[str, Any]) -> dict[str, Any]:
    """Head inside a wrapper, with the keys that are meant for it."""
    if 'head' not in head:
        return head
    own = inspect.signature(MODELS.get(head['type']).__init__).parameters
    return {key: value for key, value in head.items() if key not in own} | head['head']


def _accepted(cfg: dict[str, Any], name: str) -> dict[str, Any]:
    """The config under another ``type``, without the keys that its class does not take."""
    known = _arguments(name)
    return {key: value for key, value in cfg.items() if key in known} | dict(type=name)


def _arguments(name: str) -> dict[str, Any]:
    """Arguments of a registered class and its parents, with the defaults."""
    found: dict[str, Any] = {}
    for cls in reversed(inspect.getmro(MODELS.get(name))):
        if '__init__' in vars(cls):
            parameters = inspect.signature(vars(cls)['__init__']).parameters.values()
            found |= {parameter.name: parameter.default for parameter in parameters}
    return found


def _common(head: dict[str, Any]) -> dict[str, Any]:
    """The levels, width, classes and norms of a head."""
    width = head.get('channels', _arguments(head['type']).get('channels')) or WIDTH
    kept = ('num_classes', 'norm_cfg', 'in_channels', 'in_index', 'input_transform')
    return {key: head[key] for key in kept if key in head} | dict(channels=width)


def _host_head(head: dict[str, Any]) -> dict[str, Any]:
    if head['type'] not in HOST_HEADS:
        return head
    new = _common(head) | HOST_HEADS[head['type']]
    if new['type'] == 'DepthwiseSeparableASPPHead':
        defaults = _arguments(head['type'])
        new['dilations'] = (1, *head.get('dilations', defaults['dilations']))
        new['c1_in_channels'] = new['in_channels'][0]
        new |= dict(in_channels=new['in_channels'][-1], in_index=new['in_index'][-1])
        new.pop('input_transform', None)
    if new['type'] == 'EncHead':
        new |= dict(in_channels=[new['in_channels']], in_index=[new['in_index']])
    if new['type'] in ('EncHead', 'FPNHead'):
        new.pop('input_transform', None)  # they choose it themselves
    return new


def _ocrnet(head: dict[str, Any]) -> list[dict[str, Any]]:
    """The host's cascade for soft regions and result."""
    common = _common(head) | dict(input_transform='resize_concat')
    width = head.get('ocr_channels', _arguments(head['type'])['ocr_channels'])
    regions = dict(type='FCNHead', channels=sum(head['in_channels']), kernel_size=1, num_convs=1)
    return [
        common | regions | dict(concat_input=False, loss_decode=_cross_entropy(0.4)),
        common | dict(type='OCRHead', ocr_channels=width, loss_decode=_cross_entropy(1.0)),
    ]


def _cross_entropy(weight: float) -> dict[str, Any]:
    return dict(type='CrossEntropyLoss', loss_weight=weight)
