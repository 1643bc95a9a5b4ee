"""``layers/head_defaults.py``: whoever is nearer to the user decides."""

from mmseg.models.decode_heads import FCNHead

from mmseg_ext.layers.head_defaults import CROSS_ENTROPY, released_defaults


def test_the_user_replaces_the_heads_defaults_and_these_the_common_ones() -> None:
    arguments = released_defaults(dict(channels=8), channels=4, norm_cfg=dict(type='GN'))
    loss = dict(type='CrossEntropyLoss', avg_non_ignore=True)
    assert arguments == dict(channels=8, norm_cfg=dict(type='GN'), init_cfg=None, loss_decode=loss)


def test_a_head_of_the_host_takes_them() -> None:
    head = FCNHead(in_channels=4, channels=4, num_classes=3, **released_defaults({}))
    assert head.init_cfg is None
    assert head.norm_cfg == dict(type='BN') and head.loss_decode.avg_non_ignore


def test_a_head_cannot_change_the_defaults_of_another() -> None:
    released_defaults({})['loss_decode']['loss_weight'] = 0.4
    released_defaults({})['norm_cfg']['type'] = 'GN'
    assert released_defaults({}) == dict(
        init_cfg=None, norm_cfg=dict(type='BN'), loss_decode=dict(CROSS_ENTROPY)
    )
