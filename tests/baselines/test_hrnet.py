"""HRNetExact against the host's HRNet, which is right where the input is a multiple of 32."""

import pytest
import torch
from mmseg.models.backbones import HRNet

from mmseg_ext.baselines import HRNetExact
from tests.tiny import small_hrnet


@pytest.fixture(scope='module')
def trunks() -> tuple[HRNetExact, HRNet]:
    ours, host = HRNetExact(extra=small_hrnet()).eval(), HRNet(extra=small_hrnet())
    host.eval()  # returns nothing
    host.load_state_dict(ours.state_dict(), strict=True)
    return ours, host


@torch.no_grad()
def test_equals_the_host_at_multiples_of_32(trunks: tuple[HRNetExact, HRNet]) -> None:
    image = torch.randn(2, 3, 64, 96)
    for ours, host in zip(*(trunk(image) for trunk in trunks), strict=True):
        assert torch.equal(ours, host)


@torch.no_grad()
def test_differs_from_the_host_elsewhere(trunks: tuple[HRNetExact, HRNet]) -> None:
    image = torch.randn(1, 3, 72, 104)
    ours, host = (trunk(image)[0] for trunk in trunks)
    assert ours.shape == host.shape
    assert (ours - host).abs().max() > 0.05 * host.std()


@torch.no_grad()
def test_stem_strides_set_the_output_stride() -> None:
    trunk = HRNetExact(extra=small_hrnet(), stem_strides=(2, 1)).eval()
    assert [tuple(x.shape[2:]) for x in trunk(torch.zeros(1, 3, 64, 96))][:2] == [
        (32, 48),
        (16, 24),
    ]


@torch.no_grad()
def test_align_corners_reaches_the_fusions() -> None:
    aligned = HRNetExact(extra=small_hrnet(), align_corners=True).eval()
    plain = HRNetExact(extra=small_hrnet()).eval()
    plain.load_state_dict(aligned.state_dict())
    image = torch.randn(1, 3, 64, 96)
    assert not torch.allclose(aligned(image)[0], plain(image)[0])
