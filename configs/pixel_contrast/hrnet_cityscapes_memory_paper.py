"""Pixel contrast (arXiv 2101.11939), HRNet-W48, Cityscapes: the paper's memory.

bash tools/dist_train.sh configs/pixel_contrast/hrnet_cityscapes_memory_paper.py 4 --amp

Semi-hard draws, 50 anchors of a class, a size for each queue (as cited); the rest is as released.
Paper: 81.0 mIoU on val, 79.0 without contrast (as cited).
Ours: not measured. Batch 8 (4 GPUs x 2), 40k iterations, crop 512x1024.
"""

_base_ = './hrnet_cityscapes.py'
model = dict(
    decode_head=dict(
        # region: one mean of each training image; pixel: ten times as many
        memory=dict(type='MemoryBank', size=dict(region=2975, pixel=29750), pixels_per_image=10),
        loss_contrast=dict(
            temperature=0.1,
            base_temperature=0.1,  # the paper has no second temperature
            max_views=50,
            per_image=False,
            semi_hard=0.1,
            num_positives=1024,
            num_negatives=2048,
            loss_weight=1.0,
        ),
    )
)
paper = dict(miou=81.0, split='Cityscapes val', source='paper, as others cite it')
