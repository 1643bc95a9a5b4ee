"""OneFormer."""

SMALLER = {  # arguments of shrunk configs, see tests/tiny.py
    'OneFormerHead': dict(
        channels=32,
        num_queries=8,
        num_heads=4,
        pixel_layers=1,
        pixel_hidden=32,
        num_layers=3,
        hidden=32,
        num_context=2,
        text_width=64,
        text_layers=1,
        num_points=32,
    ),
    'ConvNeXt': dict(depths=(1, 1, 1, 1), channels=(4, 8, 16, 32), layer_scale=0.1),
    'SwinTransformer': dict(
        embed_dims=4, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=4
    ),
}
