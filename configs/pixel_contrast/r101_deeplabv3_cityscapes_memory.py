"""Pixel contrast (arXiv 2101.11939), DeepLabV3 on ResNet-101, Cityscapes, with memory.

bash tools/dist_train.sh configs/pixel_contrast/r101_deeplabv3_cityscapes_memory.py 4 \
    --init IMAGENET.pth

Released: no number. The paper's memory is r101_deeplabv3_cityscapes_memory_paper.py.
Ours: not measured. Batch 8 (4 GPUs x 2), 40k iterations, crop 512x1024.
"""

_base_ = './r101_deeplabv3_cityscapes.py'
model = dict(
    decode_head=dict(
        memory=dict(type='MemoryBank', size=5000, pixels_per_image=10),
        loss_contrast=dict(temperature=0.07, max_views=1, loss_weight=1.0),
    )
)
