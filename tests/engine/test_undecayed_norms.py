"""Groups of parameters of an optimiser without decay of norms and embeddings."""

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from tests.tiny import CONFIG_DIR, tiny

PATH = CONFIG_DIR / 'oneformer/swin_l_cityscapes.py'


def test_norms_and_embeddings_have_no_decay_at_any_learning_rate() -> None:
    cfg, model = Config.fromfile(PATH), tiny(PATH)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    group_of = {id(p): group for group in groups for p in group['params']}
    modules = dict(model.named_modules())
    undecayed = 0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        group, owner = group_of[id(parameter)], modules[name.rpartition('.')[0]]
        assert group['lr'] == (1e-5 if name.startswith('backbone') else 1e-4), name
        is_norm = isinstance(owner, nn.LayerNorm | nn.GroupNorm | nn.Embedding)
        is_table = name.endswith('relative_position_bias_table')
        assert group['weight_decay'] == (0 if is_norm or is_table else 0.05), name
        undecayed += is_norm
    assert undecayed > 30
    tables = model.decode_head.pixel_decoder.level_embed, model.decode_head.criterion.contrastive
    for parameter in (tables[0], tables[1].logit_scale):  # as released, these decay
        assert isinstance(parameter, torch.Tensor)
        assert group_of[id(parameter)]['weight_decay'] == 0.05
