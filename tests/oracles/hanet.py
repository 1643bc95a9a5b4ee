"""HANet as released: each gate pools its map, looks its positions up on the whole map of them, and
gates what the pyramid has concatenated map by map; the pooled image is one of these maps.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ext.benchmark.op_benchmark import OpBenchmark, Run
from mmseg_ext.papers.hanet import HANetHead, HeightAttention
from mmseg_ext.papers.hanet.attention import at_height


def gate_released(
    attention: HeightAttention, x: Tensor, feat: Tensor, positions: Tensor | None = None
) -> Tensor:
    """``feat`` times the gates of ``x``; positions (N, H, W) of all pixels, 0 to 128."""
    rows = attention.rows
    signal = attention.to_rows(x, (rows, 1))
    if positions is not None and attention.injection:
        index = positions // (128 // rows)
        column = index[:, :, 0].float()[:, None]
        index = F.interpolate(column, rows, mode='nearest')[:, 0].long()
        code = attention.position[index].permute(0, 2, 1)[..., None]
    else:
        code = 0
    if attention.injection == 1:
        signal = signal + code
    signal = attention.squeeze(attention.dropout(signal))
    if attention.injection == 2:
        signal = signal + code
    gate = attention.conv_gate(attention.expand(signal)).sigmoid()
    gate = F.interpolate(gate[..., 0], feat.shape[2], mode='linear', align_corners=False)
    return feat * gate[..., None]


def head_released(head: HANetHead, levels: list[Tensor], positions: Tensor) -> Tensor:
    """Logits of c1, c3 and c4."""
    c1, c3, c4 = levels
    gates = head.height_attention

    def gated(i: str, x: Tensor, feat: Tensor) -> Tensor:
        return gate_released(gates[i], x, feat, positions) if i in gates else feat

    def enlarge(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[2:], mode='bilinear', align_corners=True)

    c4 = gated('0', c3, c4)
    out = enlarge(head.image_pool(F.adaptive_avg_pool2d(c4, 1)), c4)
    for branch in head.aspp:
        out = torch.cat([out, branch(c4)], 1)
    pyramid = gated('1', c4, out)
    high = gated('2', pyramid, head.bottleneck(pyramid))
    low = head.low(c1)
    low = torch.cat([low, enlarge(high, low)], 1)
    feats = gated('3', low, head.decoder(low))
    logits = head.conv_seg(feats)
    return gated('4', feats, logits)


LEVELS = {  # of ResNet-101, output stride 8, by the size of the input
    'cpu': (192, 384),
    'cuda': (768, 768),
}
SHAPE = '2 images of 192x384 (GPU: 768x768)'


def released_head(**changes: object) -> HANetHead:
    init_default_scope('mmseg')
    cfg = dict(type='HANetHead', in_channels=[256, 1024, 2048], in_index=[0, 1, 2], num_classes=19)
    head: HANetHead = MODELS.build(cfg | changes)
    return head


def _levels(device: torch.device) -> list[Tensor]:
    h, w = LEVELS[device.type]
    sizes = [(256, 4), (1024, 8), (2048, 8)]
    return [torch.randn(2, c, h // s, w // s, device=device).relu() for c, s in sizes]


def _step(head: nn.Module, run: Callable[[list[Tensor]], Tensor], levels: list[Tensor]) -> Run:
    """Forward and backward, with norms on their statistics and no dropout."""
    head.eval()

    def step() -> list[Tensor]:
        leaves = [x.detach().requires_grad_() for x in levels]
        logits = run(leaves)
        weights = [head.bottleneck.conv.weight, head.decoder[0].conv.weight]
        wanted = [*leaves, *weights]  # c3 is used by gates alone
        grads = torch.autograd.grad(logits.square().mean(), wanted, materialize_grads=True)
        return [logits.detach(), *grads[-2:]]  # single pixels may differ in a ReLU near 0

    return step


def _make_head(device: torch.device) -> tuple[Run, Run]:
    head, levels = released_head().to(device), _levels(device)
    h, w = LEVELS[device.type]
    rows = (2 * torch.arange(h, device=device) + 1) * 128 // (2 * h)
    positions = rows[:, None].expand(2, h, w).contiguous()

    def ours(x: list[Tensor]) -> Tensor:
        return head(x, **head.side_inputs([{}, {}], (h, w)))

    def released(x: list[Tensor]) -> Tensor:
        return head_released(head, x, positions)

    return _step(head, ours, levels), _step(head, released, levels)


def _make_gates(device: torch.device) -> tuple[Run, Run]:
    """The head with gates, which stand open, against the same without."""
    gated, levels = released_head().to(device), _levels(device)
    for attention in gated.height_attention.values():
        nn.init.zeros_(attention.conv_gate.weight)
        nn.init.constant_(attention.conv_gate.bias, 30.0)
    plain = released_head(gates=()).to(device)
    plain.load_state_dict(gated.state_dict(), strict=False)
    return _step(gated, gated, levels), _step(plain, plain, levels)


def _make_gate(device: torch.device) -> tuple[Run, Run]:
    """The gate of the widest map, forward and backward."""
    init_default_scope('mmseg')
    gate = HeightAttention(1024, 2048).eval().to(device)
    h, w = (side // 8 for side in LEVELS[device.type])
    x, feat = (torch.randn(2, c, h, w, device=device).relu().requires_grad_() for c in (1024, 2048))
    rows = torch.arange(gate.rows, device=device).expand(2, -1)
    positions = (rows * (128 // gate.rows))[..., None].expand(-1, -1, w)

    def step(run: Callable[[], Tensor]) -> Run:
        def both_ways() -> list[Tensor]:
            out = run()
            grads = torch.autograd.grad(out.square().mean(), (x, feat, gate.conv_gate.weight))
            return [out.detach(), *grads]

        return both_ways

    def ours() -> Tensor:
        return feat * at_height(gate(gate.summarise(x), rows), like=feat)

    return step(ours), step(lambda: gate_released(gate, x, feat, positions))


BENCHMARKS = [
    OpBenchmark('hanet', SHAPE, _make_head),
    OpBenchmark('hanet_gate', '2048 channels, stride 8 of the same', _make_gate),
    OpBenchmark('hanet_gates', f'{SHAPE}, against no gates', _make_gates),
]
