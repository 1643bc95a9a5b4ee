"""Pixel contrast (arXiv 2101.11939), HRNet-W48 and OCR, Cityscapes, with memory.

bash tools/dist_train.sh configs/pixel_contrast/hrnet_ocr_cityscapes_memory.py 4 --amp

Released: no number. The paper's memory is hrnet_ocr_cityscapes_memory_paper.py.
Ours: not measured. Batch 8 (4 GPUs x 2), 40k iterations, crop 512x1024.
"""

_base_ = './hrnet_ocr_cityscapes.py'
model = dict(
    decode_head=dict(
        memory=dict(type='MemoryBank', size=5000, pixels_per_image=10),
        loss_contrast=dict(temperature=0.07, max_views=1, loss_weight=1.0),
    )
)
