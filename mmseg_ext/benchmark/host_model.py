"""The host's nearest model of a config: the same network, built from classes of the host."""

import inspect
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS

from mmseg_ext.config.walk import as_list
from mmseg_ext.errors import UserError
from mmseg_ext.segmentors.shared_keys import SHARED, with_shared_keys

HOST = ('mmcv', 'mmengine', 'mmpretrain', 'mmseg')
WIDTH = 512  # width of the host's head if ours takes its width from the levels


def host_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """The config of an ``EncoderDecoder`` from classes of the host, with the width of ``model``.

    Each head, backbone and neck is replaced by the config that its class declares as
    ``host_counterpart``. A neck may declare ``host_backbone`` instead: then the neck is removed and
    the backbone gets these changes. Counterparts have the host's default loss. The counterpart of
    HMSA is OCRNet at a single scale, that of DSRL its network on images of full size, and that of
    MagNet its segmentor on the whole image.

    Raises:
        UserError: A head, a backbone or a neck has no counterpart.
    """
    cfg = deepcopy(dict(model))
    if 'segmentor' in cfg:
        cfg = {**cfg['segmentor'], 'data_preprocessor': cfg['data_preprocessor']}
    shared = {key: cfg.get(key) for key in SHARED}
    backbone, head = cfg['backbone'], _plain_head(with_shared_keys(cfg['decode_head'], shared))
    stem_levels, top_levels = (
        getattr(MODELS.get(backbone['type']), name, 0) for name in ('stem_levels', 'top_levels')
    )
    if stem_levels or top_levels:  # the host's backbone has no levels before or after its stages
        levels = slice(stem_levels, len(head['in_channels']) - top_levels)
        head['in_channels'] = head['in_channels'][levels]
        head['in_index'] = [index - stem_levels for index in head['in_index'][levels]]
    if top_levels:
        backbone['out_indices'] = backbone['out_indices'][:-top_levels]
    if cfg.get('neck'):
        changes = getattr(MODELS.get(cfg['neck']['type']), 'host_backbone', None)
        if changes is None:
            cfg['neck'] = _accepted(cfg['neck'], **_counterpart(cfg['neck']))
        else:
            del cfg['neck']
            backbone.update(changes)
    cfg['backbone'] = _accepted(backbone, **_counterpart(backbone))
    if cfg.get('data_preprocessor'):
        cfg['data_preprocessor'].update(_counterpart(cfg['data_preprocessor']))
    cfg |= dict(type='EncoderDecoder', decode_head=_host_head(head))
    if isinstance(cfg['decode_head'], list):
        cfg |= dict(type='CascadeEncoderDecoder', num_stages=len(cfg['decode_head']))
    if cfg.get('auxiliary_head'):
        auxiliary_heads = with_shared_keys(as_list(cfg['auxiliary_head']), shared)
        heads = [_host_head(auxiliary_head) for auxiliary_head in auxiliary_heads]
        cfg['auxiliary_head'] = heads if len(heads) > 1 else heads[0]
    arguments = {*inspect.signature(EncoderDecoder.__init__).parameters, 'type', 'num_stages'}
    return {key: value for key, value in cfg.items() if key in arguments}


def _counterpart(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Config that a class declares as its counterpart; for a class of the host, its own type.

    Raises:
        UserError: The class is not of the host and declares no counterpart.
    """
    cls = MODELS.get(cfg['type'])
    if cls.__module__.partition('.')[0] in HOST:
        return dict(type=cfg['type'])
    counterpart = getattr(cls, 'host_counterpart', None)
    if counterpart is None:
        raise UserError(
            f'no counterpart of {cfg["type"]} in the host is known: name a config by --against'
        )
    return deepcopy(counterpart)


def _plain_head(head: dict[str, Any]) -> dict[str, Any]:
    """Config of the head inside a wrapper, with the keys that the wrapper passes to it."""
    if 'head' not in head:
        return head
    arguments = inspect.signature(MODELS.get(head['type']).__init__).parameters
    return {key: value for key, value in head.items() if key not in arguments} | head['head']


def _accepted(cfg: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The config with ``changes`` (such as ``type``), without keys that its class does not take."""
    arguments = _arguments(changes['type'])
    return {key: value for key, value in cfg.items() if key in arguments} | changes


def _arguments(name: str) -> dict[str, Any]:
    """Arguments of a registered class and its parents, with their defaults."""
    arguments: dict[str, Any] = {}
    for cls in reversed(inspect.getmro(MODELS.get(name))):
        if '__init__' in vars(cls):
            parameters = inspect.signature(vars(cls)['__init__']).parameters.values()
            arguments |= {parameter.name: parameter.default for parameter in parameters}
    return arguments


def _common(head: dict[str, Any]) -> dict[str, Any]:
    """Keys that a head and its counterpart share: levels, width, classes and norms."""
    width = head.get('channels', _arguments(head['type']).get('channels')) or WIDTH
    keys = ('num_classes', 'norm_cfg', 'in_channels', 'in_index', 'input_transform')
    return {key: head[key] for key in keys if key in head} | dict(channels=width)


def _host_head(head: dict[str, Any]) -> Any:
    """Config of the counterpart of a head; a list of configs if it is a cascade."""
    counterpart = _counterpart(head)
    if counterpart['type'] == head['type']:
        return head
    if counterpart['type'] == 'OCRHead':
        return _ocrnet(head)
    new = _common(head) | counterpart
    if new['type'] == 'DepthwiseSeparableASPPHead':
        defaults = _arguments(head['type'])
        new['dilations'] = (1, *head.get('dilations', defaults['dilations']))
        new['c1_in_channels'] = new['in_channels'][0]
        new |= dict(in_channels=new['in_channels'][-1], in_index=new['in_index'][-1])
        new.pop('input_transform', None)
    if new['type'] == 'DAHead':  # as wide as ours, which takes its width from the levels
        width = head['in_channels']
        width = head.get('channels') or (width if isinstance(width, int) else sum(width)) // 4
        new |= dict(channels=width, pam_channels=head.get('pam_channels') or width // 8)
    if new['type'] == 'EncHead':
        new |= dict(in_channels=[new['in_channels']], in_index=[new['in_index']])
    if new['type'] in ('EncHead', 'FPNHead'):
        new.pop('input_transform', None)  # these heads set it themselves
    return new


def _ocrnet(head: dict[str, Any]) -> list[dict[str, Any]]:
    """Configs of the host's OCRNet, a cascade of two heads: soft regions and result."""
    common = _common(head) | dict(input_transform='resize_concat')
    width = head.get('ocr_channels', _arguments(head['type'])['ocr_channels'])
    regions = dict(type='FCNHead', channels=sum(head['in_channels']), kernel_size=1, num_convs=1)
    return [
        common | regions | dict(concat_input=False, loss_decode=_cross_entropy(0.4)),
        common | dict(type='OCRHead', ocr_channels=width, loss_decode=_cross_entropy(1.0)),
    ]


def _cross_entropy(weight: float) -> dict[str, Any]:
    return dict(type='CrossEntropyLoss', loss_weight=weight)
