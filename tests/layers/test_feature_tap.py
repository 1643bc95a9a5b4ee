"""The tap and the wrapper base, on every head of the host and in every way a model is run."""

import copy
import pickle
import re
import weakref
from typing import Any

import mmseg.models  # noqa: F401  (fills the registry)
import pytest
import torch
import torch.distributed as dist
from mmengine.config import ConfigDict
from mmengine.runner.checkpoint import load_checkpoint
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from mmseg_ext.layers.feature_tap import FeatureTap, WrapperHead, plain_state_dict, substitute

NUM_CLASSES = 4
IMAGE = (64, 64)
BASE = dict(channels=8, num_classes=NUM_CLASSES, norm_cfg=dict(type='BN'), dropout_ratio=0.5)
SINGLE = dict(BASE, in_channels=8, in_index=1)
LEVELS = dict(BASE, in_channels=[8] * 4, in_index=[0, 1, 2, 3])


def ce(n: int) -> list[dict]:
    return [dict(type='CrossEntropyLoss') for _ in range(n)]


KERNEL_UPDATE = dict(
    type='KernelUpdateHead', num_classes=NUM_CLASSES, num_heads=1, feedforward_channels=8,
    in_channels=8, out_channels=8,
    kernel_updator_cfg=dict(type='KernelUpdator', in_channels=8, feat_channels=8, out_channels=8),
)  # fmt: skip

SERVED = {
    'ANNHead': dict(BASE, in_channels=[8, 8], in_index=[1, 2], project_channels=4),
    'APCHead': SINGLE,
    'ASPPHead': SINGLE,
    'DAHead': dict(SINGLE, pam_channels=4),
    'DDRHead': dict(BASE, in_channels=8, loss_decode=ce(2)),
    'DMHead': SINGLE,
    'DNLHead': SINGLE,
    'DPTHead': dict(LEVELS, embed_dims=8, post_process_channels=[8] * 4,
                    input_transform='multiple_select'),
    'DepthwiseSeparableASPPHead': dict(SINGLE, c1_in_channels=8, c1_channels=4),
    'DepthwiseSeparableFCNHead': SINGLE,
    'EMAHead': dict(SINGLE, ema_channels=8, num_bases=4, num_stages=2),
    'EncHead': LEVELS,
    'FCNHead': SINGLE,
    'FPNHead': dict(LEVELS, feature_strides=[4, 8, 16, 32]),
    'GCHead': SINGLE,
    'ISAHead': dict(SINGLE, isa_channels=4),
    'LRASPPHead': dict(BASE, in_channels=[8] * 3, in_index=[0, 0, 0], branch_channels=(4, 4),
                       input_transform='multiple_select'),
    'LightHamHead': dict(LEVELS, ham_channels=8, ham_kwargs=dict(MD_R=4), norm_cfg=dict(
        type='GN', num_groups=2)),
    'NLHead': SINGLE,
    'OCRHead': dict(SINGLE, ocr_channels=4),
    'PIDHead': dict(BASE, in_channels=8, loss_decode=[
        *ce(2), dict(type='BoundaryLoss'), dict(type='OhemCrossEntropy')]),
    'PSPHead': SINGLE,
    'SETRMLAHead': dict(LEVELS, in_index=[1] * 4, mla_channels=2),
    'SETRUPHead': SINGLE,
    'STDCHead': SINGLE,
    'SegformerHead': LEVELS,
    'UPerHead': LEVELS,
}  # fmt: skip

REFUSED = {
    'IterativeDecodeHead': dict(
        num_stages=1,
        kernel_generate_head=dict(SINGLE, type='FCNHead'),
        kernel_update_head=[KERNEL_UPDATE],
    ),
    'KernelUpdateHead': KERNEL_UPDATE,
    'KernelUpdator': dict(in_channels=8, feat_channels=8, out_channels=8),
    'SegmenterMaskTransformerHead': dict(
        SINGLE, num_layers=1, num_heads=1, embed_dims=8, init_cfg=None
    ),
    'VPDDepthHead': dict(in_channels=[16, 8, 8, 8], embed_dim=16, feature_dim=32,
                         num_deconv_filters=(8, 8, 8)),
}  # fmt: skip

NEED_OPS = {'CCHead', 'PSAHead', 'PointHead', 'SideAdapterCLIPHead'}
NEED_MMDET = {'Mask2FormerHead', 'MaskFormerHead'}


def build(name: str, **changes: Any) -> nn.Module:
    return MODELS.build({**(SERVED | REFUSED)[name], 'type': name, **changes})


def make_samples(n: int = 2) -> list[SegDataSample]:
    samples = []
    for _ in range(n):
        label = torch.randint(NUM_CLASSES, (1, *IMAGE))
        data = dict(gt_sem_seg=PixelData(data=label), gt_edge_map=PixelData(data=label % 2))
        sample = SegDataSample(metainfo=dict(img_shape=IMAGE))
        sample.set_data(data)
        samples.append(sample)
    return samples


def make_inputs(name: str, training: bool) -> tuple:
    """What the head gets before its samples: levels of strides 1 to 8, or its network's form."""
    levels = [torch.randn(2, 8, IMAGE[0] // s, IMAGE[1] // s) for s in (1, 2, 4, 8)]
    half = torch.randn(2, 4, *IMAGE)
    if name == 'DDRHead':
        return ((half, levels[0]) if training else levels[0],)
    if name == 'PIDHead':
        return ((half, levels[0], half) if training else levels[0],)
    if name == 'DPTHead':
        return ([(level, torch.randn(2, 8)) for level in [levels[3]] * 4],)
    if name == 'OCRHead':
        return levels, torch.randn(2, NUM_CLASSES, *levels[1].shape[2:])
    return (levels,)


def assert_tapped(head: nn.Module, features: Tensor, logits: Tensor) -> None:
    """The features are what conv_seg saw, dropout included: conv_seg makes the logits of them."""
    assert logits.shape[:2] == (2, NUM_CLASSES)
    torch.testing.assert_close(head.conv_seg(features), logits)


def fcn(**changes: Any) -> tuple[nn.Module, list[Tensor]]:
    return build('FCNHead', in_index=0, **changes), [torch.randn(2, 8, 16, 16)]


def test_every_head_of_the_host_is_served_or_refused():
    host = {
        name
        for name, kind in MODELS.module_dict.items()
        if kind.__module__.startswith('mmseg.models.decode_heads.')
    }
    assert host == SERVED.keys() | REFUSED.keys() | NEED_OPS | NEED_MMDET


@pytest.mark.parametrize('kind', [nn.Dropout, nn.Dropout2d])
def test_features_before_the_dropout_are_those_that_it_drops(kind: type[nn.Module]):
    head, inputs = fcn(num_convs=1, concat_input=False)
    head.dropout = kind(0.5)
    tap = FeatureTap(head, before_dropout=True)
    _, features, logits = tap(head.train(), inputs)
    torch.testing.assert_close(features, head.convs(inputs[0]))
    assert (features == 0).float().mean() < (head.dropout(features) == 0).float().mean()
    assert not torch.allclose(head.conv_seg(features), logits)
    head.eval()
    _, features, logits = tap(head, inputs)
    assert_tapped(head, features, logits)


def test_features_of_a_head_without_dropout_are_the_input_of_its_last_layer():
    head, inputs = fcn(dropout_ratio=0)
    _, features, logits = FeatureTap(head, before_dropout=True)(head, inputs)
    assert_tapped(head, features, logits)


@pytest.mark.parametrize('name', SERVED)
def test_a_head_gives_its_features_and_logits(name: str):
    head = build(name)
    tap = FeatureTap(head)

    result, features, logits = tap(head, *make_inputs(name, training=True))
    assert_tapped(head, features, logits)
    assert any(item is logits for item in (result if isinstance(result, tuple) else [result]))
    assert substitute(result, logits, None) is not result

    losses, features, logits = tap(head.loss, *make_inputs(name, training=True), make_samples(), {})
    assert_tapped(head, features, logits)
    total = sum(value for key, value in losses.items() if 'loss' in key)
    grads = torch.autograd.grad(total, [features, logits])
    assert all(grad.isfinite().all() and grad.any() for grad in grads)

    head.eval()
    inputs = make_inputs(name, training=False)
    metas = [dict(img_shape=IMAGE)] * 2
    predicted, features, logits = tap(head.predict, *inputs, metas, {})
    assert_tapped(head, features, logits)
    torch.testing.assert_close(predicted, head.predict_by_feat(logits, metas))


@pytest.mark.parametrize('name', REFUSED)
def test_a_head_without_conv_seg_is_refused_when_the_model_is_built(name: str):
    with pytest.raises(ValueError, match=f'{name} has no conv_seg, .* choose a head'):
        FeatureTap(build(name))


class TwoForwards(nn.Module):
    """Owner of a tap that runs its head twice a step, as HMSA does over two scales."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.tap = FeatureTap(head)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        result, features, logits = self.tap(self.head, [x])
        _, more_features, more_logits = self.tap(self.head, [x * 2])
        return substitute(result, logits, logits + more_logits), features + more_features


def plain_two_forwards(head: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The same without a tap."""
    features = [head._forward_feature([x]), head._forward_feature([x * 2])]
    return head.conv_seg(features[0]) + head.conv_seg(features[1]), features[0] + features[1]


def grads(head: nn.Module, outputs: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    total = outputs[0].square().mean() + outputs[1].square().mean()
    names, params = zip(*head.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(total, params), strict=True))


@pytest.fixture
def owner() -> tuple[TwoForwards, Tensor]:
    """A head without chance or state, so that every way of running it must agree."""
    head, (x,) = fcn(dropout_ratio=0, norm_cfg=None)
    return TwoForwards(head), x


def assert_as_plain(head: nn.Module, run: Any, x: Tensor) -> None:
    outputs, expected = run(x), plain_two_forwards(head, x)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(grads(head, outputs), grads(head, expected))


def test_two_forwards_a_step_are_kept_apart(owner):
    model, x = owner
    assert_as_plain(model.head, model, x)


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_a_working_tap_of_its_own(owner, copied):
    model, x = owner
    twin = copied(model)
    assert_as_plain(twin.head, twin, x)
    assert_as_plain(model.head, model, x)
    with pytest.raises(ValueError, match='ran conv_seg 0 times'):
        model.tap(twin.head, [x])


def test_nothing_is_kept_after_a_call_or_an_error(owner):
    model, x = owner
    seen = []

    def fail() -> None:
        result, features, logits = model.tap(model.head, [x])
        seen.extend([weakref.ref(features), weakref.ref(logits)])
        model.tap(lambda: [model.head([x]), 1 / 0])

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [ref() for ref in seen] == [None, None]
    assert vars(model.tap) == {'_hits': None}
    assert model.state_dict().keys() == {f'head.{name}' for name in model.head.state_dict()}


@pytest.mark.parametrize('count', [0, 2])
def test_a_count_other_than_one_is_an_error_that_gives_it(owner, count):
    model, x = owner
    with pytest.raises(ValueError, match=f'ran conv_seg {count} times in one call .* choose'):
        model.tap(lambda: [model.head([x]) for _ in range(count)])
    model(x)  # and the tap works on


@pytest.mark.parametrize('training', [True, False])
def test_compile_needs_no_graph_break(owner, training):
    model, x = owner
    model.train(training)
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    assert_as_plain(model.head, compiled, x)
    assert_as_plain(model.head, compiled, torch.randn(1, 8, 12, 20))


@pytest.mark.parametrize('strict', [True, False])
def test_export_gives_the_same_outputs_at_another_size(owner, strict):
    model, x = owner
    sizes = {2: torch.export.Dim('h', min=4, max=64), 3: torch.export.Dim('w', min=4, max=64)}
    exported = torch.export.export(model.eval(), (x,), dynamic_shapes=(sizes,), strict=strict)
    other = torch.randn(2, 8, 24, 12)
    torch.testing.assert_close(exported.module()(other), plain_two_forwards(model.head, other))


def test_autocast_keeps_its_dtype_and_trains_float32_weights(owner):
    model, x = owner
    with torch.autocast('cpu', torch.bfloat16):
        outputs, expected = model(x), plain_two_forwards(model.head, x)
    assert [out.dtype for out in outputs] == [torch.bfloat16] * 2
    torch.testing.assert_close(outputs, expected)
    assert all(grad.dtype == torch.float32 for grad in grads(model.head, outputs).values())


class CheckpointedHead(nn.Module):
    """A head that runs its whole forward, ``conv_seg`` too, under activation checkpointing."""

    def __init__(self, head: nn.Module, use_reentrant: bool) -> None:
        super().__init__()
        self.inner = head
        self.conv_seg = head.conv_seg
        self.use_reentrant = use_reentrant

    def forward(self, inputs: list[Tensor]) -> Tensor:
        return checkpoint(lambda x: self.inner([x]), *inputs, use_reentrant=self.use_reentrant)


def test_checkpointing_in_the_head_or_around_the_tap_changes_nothing(owner):
    model, x = owner
    inside = TwoForwards(CheckpointedHead(model.head, use_reentrant=False))
    assert_as_plain(model.head, inside, x)
    assert_as_plain(model.head, lambda x: checkpoint(model, x, use_reentrant=False), x)
    assert_as_plain(model.head, model, x)


def test_reentrant_checkpointing_is_refused_for_it_would_lose_gradients(owner):
    model, x = owner
    inside = TwoForwards(CheckpointedHead(model.head, use_reentrant=True))
    with pytest.raises(ValueError, match='use_reentrant=False'):
        inside(x.requires_grad_())


def train_one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    model = TwoForwards(torch.load(f'{folder}/head.pt', weights_only=False))
    ddp = DistributedDataParallel(model)
    outputs = ddp(torch.load(f'{folder}/x.pt')[rank::2])
    (outputs[0].square().mean() + outputs[1].square().mean()).backward()
    torch.save({n: p.grad for n, p in model.head.named_parameters()}, f'{folder}/{rank}.pt')
    # As the group's last owner, DDP's reducer would join gloo's thread while it keeps the GIL from
    # that thread, and so wait forever.
    del ddp
    dist.destroy_process_group()


def test_two_processes_give_the_gradients_of_one(owner, tmp_path):
    model, x = owner
    torch.save(model.head, tmp_path / 'head.pt')
    torch.save(x, tmp_path / 'x.pt')
    torch.multiprocessing.spawn(train_one_rank, (str(tmp_path),), nprocs=2)
    expected = grads(model.head, plain_two_forwards(model.head, x))
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f'{rank}.pt'), expected)


def test_substitute_swaps_by_identity_at_any_depth_and_leaves_the_original():
    old, new, other = torch.zeros(2), torch.ones(2), torch.zeros(2)
    assert substitute(old, old, new) is new
    result = {'a': [other, (old, None)], 'b': 3}
    swapped = substitute(result, old, new)
    assert swapped['a'][1][0] is new and swapped['a'][0] is other and swapped['b'] == 3
    assert isinstance(swapped['a'], list) and isinstance(swapped['a'][1], tuple)
    assert result['a'][1][0] is old


@pytest.mark.parametrize('count', [0, 2])
def test_substitute_refuses_logits_that_are_not_there_exactly_once(count):
    old = torch.zeros(2)
    with pytest.raises(ValueError, match=f'conv_seg is {count} times in .* choose a head'):
        substitute([old] * count + [old.clone()], old, torch.ones(2))


class GatedHead(WrapperHead):
    """The least wrapper with a layer of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gate = nn.Conv2d(self.channels, 1, 1)

    def forward(self, inputs: list[Tensor]) -> Any:
        result, features, logits = self.tap(self.head, inputs)
        gate = self.gate(features).sigmoid() / self.num_classes
        return substitute(result, logits, logits * gate)


def make_segmentor(decode_head: dict) -> nn.Module:
    backbone = dict(
        type='ResNet', depth=18, base_channels=8, num_stages=4, norm_cfg=BASE['norm_cfg']
    )
    decode_head = dict(decode_head, in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3],
                       input_transform='resize_concat', num_classes=NUM_CLASSES,
                       norm_cfg=BASE['norm_cfg'])  # fmt: skip
    model = MODELS.build(dict(type='EncoderDecoder', backbone=backbone, decode_head=decode_head,
                              test_cfg=ConfigDict(mode='whole')))  # fmt: skip
    model.init_weights()
    return model


INNER = dict(type='FCNHead', channels=8, dropout_ratio=0)


def test_a_wrapper_takes_the_place_of_the_head_in_a_segmentor():
    plain = make_segmentor(INNER)
    wrapped = make_segmentor(dict(type=WrapperHead, head=INNER))
    wrapped.load_state_dict(plain.state_dict())
    assert (wrapped.num_classes, wrapped.out_channels, wrapped.align_corners) == (4, 4, False)
    x, samples = torch.randn(2, 3, *IMAGE), make_samples()
    assert wrapped.loss(x, samples) == plain.loss(x, samples)
    torch.testing.assert_close(wrapped(x), plain(x))
    plain.eval(), wrapped.eval()
    assert torch.equal(wrapped.predict(x)[1].seg_logits.data, plain.predict(x)[1].seg_logits.data)


def test_the_inner_head_gets_every_key_and_its_own_keys_win():
    wrapper = WrapperHead(head=dict(type='FCNHead', channels=6, num_classes=7), **SINGLE)
    assert (wrapper.head.channels, wrapper.head.num_classes) == (6, 7)
    assert (wrapper.in_index, wrapper.dropout_ratio, wrapper.threshold) == (1, 0.5, None)
    assert wrapper.loss_decode is wrapper.head.loss_decode
    assert not hasattr(wrapper, 'no_such_name')
    assert not hasattr(wrapper, '_transform_inputs')  # what asks for private names means our own


def test_a_wrapper_compiles_exports_copies_and_pickles():
    wrapper = GatedHead(head=dict(SINGLE, type='FCNHead', in_index=0)).eval()
    inputs = [torch.randn(2, 8, 16, 16)]
    expected = wrapper(inputs)
    compiled = torch.compile(wrapper, fullgraph=True, backend='aot_eager')
    exported = torch.export.export(wrapper, (inputs,)).module()
    pickled = pickle.loads(pickle.dumps(wrapper))
    for run in (compiled, exported, pickled, copy.deepcopy(wrapper)):
        torch.testing.assert_close(run(inputs), expected)


def test_the_wrapper_has_no_parameters_but_the_inner_heads():
    names = {
        name for name, _ in WrapperHead(head=dict(type='FCNHead'), **SINGLE).named_parameters()
    }
    assert names == {f'head.{name}' for name, _ in build('FCNHead').named_parameters()}


def test_init_weights_reaches_the_inner_head():
    weight = make_segmentor(dict(type=WrapperHead, head=INNER)).decode_head.head.conv_seg.weight
    assert 0.005 < weight.std() < 0.015


@pytest.mark.parametrize('name', ['FCNHead', 'DDRHead', 'STDCHead'])
def test_weights_go_from_the_plain_head_to_the_wrapper_and_back(name):
    """DDRHead has a module called head itself, STDCHead a buffer."""
    plain = nn.ModuleDict(dict(decode_head=build(name), rest=nn.Conv2d(1, 1, 1)))
    wrapper = WrapperHead(head=dict(SERVED[name], type=name))
    wrapped = nn.ModuleDict(dict(decode_head=wrapper, rest=nn.Conv2d(1, 1, 1)))
    names = set(plain.state_dict())
    wrapped.load_state_dict(plain.state_dict())
    back = plain_state_dict(wrapped.state_dict())
    assert back.keys() == names
    torch.testing.assert_close(back, dict(plain.state_dict()))
    twin = copy.deepcopy(wrapped)
    twin.load_state_dict(wrapped.state_dict())


class NamesakeHead(WrapperHead):
    """A wrapper whose own layer has the name of one of the inner head."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conv_seg = nn.Conv2d(8, NUM_CLASSES, 1)


def test_a_layer_of_ours_and_its_namesake_in_the_inner_head_are_not_mixed_up():
    first, second = (NamesakeHead(head=dict(SINGLE, type='FCNHead')) for _ in range(2))
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(dict(second.state_dict()), dict(first.state_dict()))

    plain, ours = build('FCNHead').state_dict(), first.conv_seg.weight.clone()
    left = second.load_state_dict(plain, strict=False)
    assert left.missing_keys == ['conv_seg.weight', 'conv_seg.bias'] and not left.unexpected_keys
    assert torch.equal(second.conv_seg.weight, ours)
    torch.testing.assert_close(plain_state_dict(second.state_dict()), dict(plain))


@pytest.mark.parametrize('missing', ['', 'conv_seg'])
def test_a_checkpoint_file_of_the_plain_model_loads_and_only_our_layers_are_missing(
    tmp_path, missing
):
    plain, wrapped = make_segmentor(INNER), make_segmentor(dict(type=GatedHead, head=INNER))
    weights = {k: v for k, v in plain.state_dict().items() if not missing or missing not in k}
    torch.save(dict(state_dict=weights), tmp_path / 'plain.pth')
    load_checkpoint(wrapped, str(tmp_path / 'plain.pth'))
    loaded = plain_state_dict(wrapped.state_dict())
    assert not any('gate' in name for name in loaded)
    torch.testing.assert_close({k: loaded[k] for k in weights}, dict(weights))
    left = wrapped.load_state_dict(dict(weights), strict=False)
    assert not left.unexpected_keys
    assert all('gate' in name or 'conv_seg' in name for name in left.missing_keys)


def test_loading_leaves_the_callers_dict_as_it_was():
    weights = build('FCNHead').state_dict()
    names = list(weights)
    WrapperHead(head=dict(SINGLE, type='FCNHead')).load_state_dict(weights)
    assert list(weights) == names


def test_weights_of_another_head_are_named_in_the_error():
    with pytest.raises(RuntimeError, match='psp_modules'):
        make_segmentor(dict(type=WrapperHead, head=INNER)).load_state_dict(
            make_segmentor(dict(type='PSPHead', channels=8)).state_dict()
        )


def test_plain_weights_have_nothing_to_take_off():
    with pytest.raises(ValueError, match='none of the .* names is like decode_head.head.conv_seg'):
        plain_state_dict(make_segmentor(INNER).state_dict())


@pytest.mark.parametrize(
    ('head', 'error', 'sentence'),
    [
        ([INNER, INNER], ValueError, 'GatedHead wraps one head, got a cascade of 2: give one dict'),
        (None, ValueError, 'needs the config of a head, dict(type=...), got head=None'),
        (dict(channels=8), ValueError, "got head={'channels': 8}"),
        (dict(type='FCNHeads'), ValueError, "head type 'FCNHeads', not registered: try FCNHead"),
        (dict(SERVED['OCRHead'], type='OCRHead'), ValueError, 'OCRHead, which needs the output'),
        (dict(type=WrapperHead, head=INNER), ValueError, 'WrapperHead, itself a wrapper'),
        (dict(type='ResNet', depth=18), ValueError, 'ResNet has no conv_seg'),
    ],
)
def test_what_cannot_be_wrapped_is_refused_with_one_sentence(head, error, sentence):
    keys = SINGLE if isinstance(head, dict) and head.get('type') is WrapperHead else {}
    with pytest.raises(error, match=re.escape(sentence)):
        GatedHead(head=head, **keys)
