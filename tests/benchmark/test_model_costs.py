import torch
from torch import Tensor, nn

from mmseg_ext.benchmark.model_costs import count_flops, measure_costs


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.large = nn.Parameter(torch.zeros(3, 1000), requires_grad=False)

    def test_step(self, data: dict[str, list[Tensor]]) -> Tensor:
        x = torch.stack(data['inputs']).repeat(1, 1, 256, 256)
        return self.norm(self.conv(x)).relu() + torch.ones(())


def test_a_model_costs_what_one_counts_by_hand() -> None:
    costs = measure_costs(Tiny().eval(), dict(inputs=[torch.zeros(3, 2, 4)]))
    pixels = 2 * 256 * 4 * 256
    assert costs.size == (2, 4)
    assert costs.parameters == 3 * 4 * 9 + 8 + 3000  # frozen ones too
    assert costs.flops == 2 * pixels * 3 * 4 * 9
    assert costs.seconds > 0
    assert costs.peak_bytes is None or costs.peak_bytes >= 4 * pixels * 4  # float32, 4 channels


def test_operations_that_are_not_counted_are_named() -> None:
    a = torch.ones(3, 4)
    flops, others = count_flops(lambda: torch.relu((a @ a.T).view(9)).exp())
    assert flops == 2 * 3 * 3 * 4
    assert others == ['exp', 'relu']


def test_attention_is_counted() -> None:
    q = torch.ones(1, 2, 5, 8)  # heads, tokens, channels
    flops, _ = count_flops(lambda: nn.functional.scaled_dot_product_attention(q, q, q))
    assert flops == 2 * 2 * (2 * 5 * 5 * 8)
