"""ESPNetv2 of width 2.0, CamVid, from weights for Cityscapes.

python tools/convert_checkpoint.py dsrl espnetv2_s_2.0_city_1024x512.pth espnetv2.pth
python tools/train.py configs/fcn/espnetv2_camvid.py --init espnetv2.pth --init-classes cityscapes

Batch 8, 16 epochs, full images. Results: README.md beside this file.
"""

_base_ = [
    '../_base_/models/encoder_decoder.py',
    '../_base_/datasets/camvid_pretrained.py',
    '../_base_/schedules/camvid_pretrained.py',
    '../_base_/default_runtime.py',
]
norm_cfg = dict(type='SyncBN', requires_grad=True)
initial_weights = "weights of EdgeNets' ESPNetv2 for Cityscapes (see configs/dsrl/README.md)"
model = dict(
    num_classes=11,
    norm_cfg=norm_cfg,
    levels=dict(in_channels=[32, 128, 256, 512], in_index=[0, 1, 2, 3]),
    head_level=dict(in_channels=512, in_index=3),
    backbone=dict(type='ESPNetV2', widen_factor=2.0, norm_cfg=norm_cfg),
    decode_head=dict(type='ESPNetV2Head', channels=10),  # that of the weights
)
