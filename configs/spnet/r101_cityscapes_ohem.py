"""SPNet of r101_cityscapes.py, trained on hard pixels; the released code has this switched off.

bash tools/dist_train.sh configs/spnet/r101_cityscapes_ohem.py 4 --init IMAGENET.pth

The paper's Cityscapes runs probably used it. Ours: not measured.
"""

_base_ = './r101_cityscapes.py'
# official, for the 19 classes
weights = [0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023]
weights += [0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507]
hard = dict(type='WeightedCELoss', class_weight=weights, threshold=0.7, min_kept=100_000)
model = dict(
    decode_head=dict(loss_decode=hard),
    auxiliary_head=dict(loss_decode=dict(_delete_=True, loss_weight=0.4, **hard)),
)
