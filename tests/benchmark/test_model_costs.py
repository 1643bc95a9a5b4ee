import torch
from torch import Tensor, nn

from mmseg_ext.benchmark.measuring import in_fresh_process
from mmseg_ext.benchmark.model_costs import Costs, measure_costs, trace_operations


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.frozen = nn.Parameter(torch.zeros(3, 1000), requires_grad=False)
        self.of_training = nn.Conv2d(3, 4, 3)

    def test_step(self, data: dict[str, list[Tensor]]) -> Tensor:
        # 64 MiB: the C library takes so much from the system again in each run
        x = torch.stack(data['inputs']).repeat(1, 1, 512, 1024)
        return self.norm(self.conv(x)).relu() + self.frozen.mT[0, 0]


def costs_of_tiny() -> Costs:
    return measure_costs(Tiny().eval(), dict(inputs=[torch.zeros(3, 2, 4)]))


def test_a_model_costs_what_one_counts_by_hand() -> None:
    costs = in_fresh_process(costs_of_tiny)  # memory that other tests free would hide the peak
    pixels = 2 * 512 * 4 * 1024
    assert costs.size == (2, 4)
    assert costs.parameters == 3 * 4 * 9 + 8 + 3000  # those of training alone do not count
    assert costs.flops == 2 * pixels * 3 * 4 * 9
    assert costs.seconds > 0
    assert costs.peak_bytes is None or costs.peak_bytes >= 4 * pixels * 4  # float32, 4 channels


def test_operations_that_are_not_counted_are_named() -> None:
    a = torch.ones(3, 4)
    trace = trace_operations(lambda: torch.relu((a @ a.T).view(9)).exp())
    assert trace.flops == 2 * 3 * 3 * 4
    assert trace.not_counted == ['exp', 'relu']


def test_attention_is_counted() -> None:
    q = torch.ones(1, 2, 5, 8)  # heads, tokens, channels
    trace = trace_operations(lambda: nn.functional.scaled_dot_product_attention(q, q, q))
    assert trace.flops == 2 * 2 * (2 * 5 * 5 * 8)
