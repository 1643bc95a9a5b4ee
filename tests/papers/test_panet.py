"""PANet: neck, pooling, heads, targets and results against the obvious formulas."""

SMALLER = {  # arguments of shrunk configs, see tests/tiny.py
    'GN': dict(num_groups=4),
    'PANetFPN': dict(out_channels=16),
}
