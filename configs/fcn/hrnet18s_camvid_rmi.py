"""HRNet-W18-small and a 3x3 convolution, CamVid, from scratch, with the RMI loss.

python tools/train.py configs/fcn/hrnet18s_camvid_rmi.py

Only the loss (arXiv 1910.12037) differs from hrnet18s_camvid.py: half a sigmoid cross entropy, half
region mutual information. Ours: not measured. Batch 8, 25 epochs, half-size images.
"""

_base_ = './hrnet18s_camvid.py'
model = dict(decode_head=dict(loss_decode=dict(_delete_=True, type='RMILoss')))
