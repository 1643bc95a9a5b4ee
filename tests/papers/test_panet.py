"""PANet: neck, pooling, heads, targets and results against the obvious formulas."""

SMALLER = {  # arguments of shrunk configs, see tests/tiny.py
    'GN': dict(num_groups=4),
    'PANetFPN': dict(out_channels=16, norm_cfg=dict(type='GN', num_groups=4)),
    'PANetInstanceHead': dict(
        box_head=dict(
            type='PANetBoxHead',
            channels=16,
            fc_channels=16,
            norm_cfg=dict(type='GN', num_groups=4),
        ),
        mask_head=dict(type='PANetMaskHead', channels=16, norm_cfg=dict(type='GN', num_groups=4)),
    ),
}
