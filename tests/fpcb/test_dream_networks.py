"""The networks of DREAM: shapes, reach, and no dependence on who shares a batch."""

import numpy as np
import pytest
import torch
from torch import nn

from cluster.errors import InputError
from pipelines.fpcb.detection.kink_filter import KinkFilter
from pipelines.fpcb.dream.inputs import N_INPUTS, Inputs
from pipelines.fpcb.dream.networks import NetworkPair, UNet


def pair(width=8, places=64):
    torch.manual_seed(0)
    square = np.eye(places, dtype=np.float32)
    return NetworkPair(Inputs(KinkFilter(square, square)), N_INPUTS, width)


@pytest.mark.parametrize("n_frames", [24, 30, 60, 61])
def test_maps_keep_their_shape_for_any_number_of_frames(n_frames):
    rebuilt, logits = pair()(torch.randn(2, N_INPUTS, n_frames, 64))
    assert rebuilt.shape == (2, N_INPUTS, n_frames, 64)
    assert logits.shape == (2, 1, n_frames, 64)


def test_panel_has_the_same_result_whoever_shares_its_batch():
    networks = pair()
    one, other = torch.randn(2, N_INPUTS, 32, 64)
    together = networks(torch.stack([one, 100 * other]))[1][0]
    torch.testing.assert_close(together, networks(one[None])[1][0], rtol=1e-4, atol=1e-5)


def test_logit_depends_on_30_frames_before_and_after():
    torch.manual_seed(0)
    net = UNet(2, 1, 8, skip=True)
    for block in net.children():
        if isinstance(block, nn.Sequential):
            block[1], block[2] = nn.Identity(), nn.Identity()  # GroupNorm alone reaches all frames
    maps = torch.randn(1, 2, 160, 64, requires_grad=True)
    net(maps)[0, 0, 80, 32].backward()
    reach = maps.grad.abs().amax(dim=(0, 1, 3))
    assert (reach[50:111] > 0).all()
    assert not reach[0]


def test_reconstruction_cannot_pass_around_its_narrow_middle():
    torch.manual_seed(0)
    net = UNet(2, 2, 8, skip=False)
    net.deep[1].weight.data.zero_()
    maps = torch.randn(2, 2, 32, 64)
    out = net(maps)
    torch.testing.assert_close(out[0], out[1])
    whole = UNet(2, 2, 8, skip=True)
    whole.deep[1].weight.data.zero_()
    assert (whole(maps)[0] - whole(maps)[1]).abs().max() > 0.1


def test_width_that_groups_do_not_divide_is_refused():
    with pytest.raises(InputError, match=r"--width.*multiple of 4"):
        pair(width=6)
