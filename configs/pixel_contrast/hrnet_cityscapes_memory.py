"""Pixel contrast (arXiv 2101.11939), HRNet-W48, Cityscapes: the released recipe with memory.

bash tools/dist_train.sh configs/pixel_contrast/hrnet_cityscapes_memory.py 4 --amp

Paper, HRNet on val: 81.0 with both queues and semi-hard draws, 79.0 without contrast (as cited;
``loss_contrast.semi_hard=0.1`` sets these draws). Released: no number. Ours: not measured. Batch 8
(4 GPUs x 2), 40k iterations, crop 512x1024.
"""

_base_ = './hrnet_cityscapes.py'
model = dict(
    decode_head=dict(
        memory=dict(type='MemoryBank', size=5000, pixels_per_image=10),
        loss_contrast=dict(temperature=0.07, max_views=1, loss_weight=1.0),
    )
)
paper = dict(
    miou=81.0, split='Cityscapes val', source='paper, as others cite it, with semi_hard=0.1'
)
