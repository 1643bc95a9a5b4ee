"""PASCAL-Context, 59 classes, background ignored, as in PyTorch-Encoding; crop 480x480."""

_base_ = './pascal_context_encoding_480x480.py'
train_dataloader = dict(dataset=dict(type='PascalContextDataset59'))
val_dataloader = dict(dataset=dict(type='PascalContextDataset59'))
test_dataloader = val_dataloader
