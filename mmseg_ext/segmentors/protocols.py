"""Interfaces that parts of an experiment may have beyond those of the host.

A part has an interface when it has all members of the class; it need not inherit from the class.
Code that uses a part asks ``isinstance(part, ExplainsHead)`` once, when the part is built.

``isinstance`` looks for members in the class and in the attributes of the object, not among the
submodules of a ``torch.nn.Module``. So a member is a method, a property or a plain attribute.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from ..errors import UserError
from ..layers.sizes import Size

Maps = dict[str, Tensor]  # named maps, each (N, C, h, w) of any h and w
Pixel = tuple[int, int]  # (x, y) of the input
Point = tuple[float, float]  # (x, y) as fractions of the input's width and height, in [0, 1)


@runtime_checkable
class ExplainsModel(Protocol):
    """A segmentor that returns named maps of its computation.

    ``visualization.pictures.draw_maps`` draws them; its docstring says how.
    """

    @property
    def explains(self) -> bool:
        """Whether the model, as it is configured, has maps."""

    @property
    def explains_pixels(self) -> bool:
        """Whether the model has maps of a single pixel."""

    def explain(
        self, inputs: Tensor, data_samples: list | None = None, pixel: Pixel | None = None
    ) -> Maps:
        """Maps of a batch.

        Args:
            inputs: Preprocessed images (N, 3, H, W), as for ``predict``.
            data_samples: Data samples of the images, as for ``predict``.
            pixel: Pixel to explain; None for maps of the whole image.

        Raises:
            UserError: A pixel is given, but the model does not explain single pixels.
        """


@runtime_checkable
class ExplainsHead(Protocol):
    """A decode head that returns named maps of its computation."""

    @property
    def explains_pixels(self) -> bool:
        """Whether the head has maps of a single pixel."""

    def explain(
        self,
        levels: Sequence[Tensor],
        *,
        point: Point | None = None,
        label: Tensor | None = None,
        **side_inputs: Any,
    ) -> Maps:
        """Maps of a batch.

        Args:
            levels: Levels (N, C_i, H_i, W_i) of the backbone or neck, as for ``forward``.
            point: Pixel to explain; None for maps of the whole image, and always None where
                ``explains_pixels`` is false.
            label: Class indices (N, 1, H, W); None without labels.
            **side_inputs: Result of the head's ``side_inputs``, as for ``forward``.
        """


@runtime_checkable
class ExplainsBackbone(Protocol):
    """A backbone or neck that returns named maps of its computation."""

    def explain(self, inputs: Any) -> tuple[Sequence[Tensor], Maps]:
        """The levels that ``forward`` returns, and the maps.

        Args:
            inputs: Images (N, 3, H, W) of a backbone, or levels of a neck, as for ``forward``.
        """


@runtime_checkable
class TakesSideInputs(Protocol):
    """A decode head whose ``forward`` takes more than features, as keyword arguments."""

    def side_inputs(self, metas: Sequence[dict], size: Size) -> dict[str, Tensor]:
        """Keyword arguments of ``forward`` and ``explain`` for a batch.

        Args:
            metas: Meta of each image; empty for images without data samples. The meta of a sliding
                window holds ``window=(top, left)``, its corner in an image of
                ``window_of=(height, width)``. Pixels of the window outside that image are padding.
            size: (H, W) of the input.
        """


@runtime_checkable
class HasAuxiliaryLogits(Protocol):
    """A decode head with further logits of the same classes in its training output."""

    @property
    def aux_logits(self) -> Sequence[int]:
        """Positions of these logits in the tuple that ``forward`` returns in training."""


@runtime_checkable
class NeedsSegmentor(Protocol):
    """A decode head that works in a single kind of segmentor."""

    @property
    def needs_segmentor(self) -> str | None:
        """Registered name of the segmentor; None where any segmentor works."""

    @property
    def segmentor_advice(self) -> str:
        """Error message for a user who puts the head into another segmentor."""


@runtime_checkable
class HasPredictionLoss(Protocol):
    """A segmentor without decode head that has a loss of predicted logits."""

    @property
    def loss_decode(self) -> Any:
        """Module with the ``loss_name`` under which the loss is logged."""

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
        """Losses of logits (N, K, H, W) against the labels of the data samples."""


@runtime_checkable
class HasTrainingParts(Protocol):
    """A model, or a part of one, with modules that a prediction does not need."""

    @property
    def training_parts(self) -> Sequence[str]:
        """Names of these modules inside the part; the part need not have them."""


@runtime_checkable
class HasDataInfo(Protocol):
    """A data set that names the files of a sample without loading them."""

    def get_data_info(self, idx: int) -> dict:
        """Information of a sample, with ``img_path`` and ``seg_map_path``."""


@runtime_checkable
class HasLabelLimits(Protocol):
    """A model that knows which values its labels may have."""

    @property
    def label_limits(self) -> tuple[int, int]:
        """Number of classes, and the label of ignored pixels."""


@runtime_checkable
class HasLabelIds(Protocol):
    """A data set whose label files hold other values than class indices."""

    @property
    def label_ids(self) -> Sequence[int]:
        """Value of each class in a label file."""


@runtime_checkable
class HasEpochs(Protocol):
    """A sampler whose order depends on the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of an epoch, for the iterators that follow."""


@runtime_checkable
class HasSeed(Protocol):
    """A sampler whose order depends on a seed."""

    seed: int


@runtime_checkable
class UndoesWrites(Protocol):
    """A module that can take back what a training step wrote to its buffers.

    It is for buffers that are large, and of which a step changes only a small part. A stop within a
    step undoes the writes; a copy of the buffers would take as much memory as they do.
    """

    def record_writes(self) -> None:
        """Forgets earlier writes, and remembers the following ones."""

    def undo_writes(self) -> None:
        """Restores all buffers as they were at the last call of ``record_writes``."""


def training_parts_of(model: nn.Module) -> tuple[str, ...]:
    """Prefixes of the weights that a prediction of ``model`` does not need."""
    return tuple(
        f'{name}.{part}.' if name else f'{part}.'
        for name, module in model.named_modules()
        if isinstance(module, HasTrainingParts)
        for part in module.training_parts
    )


def no_single_pixels(name: str) -> UserError:
    """Error for a call of ``explain`` with a pixel, where there are no maps of single pixels."""
    return UserError(f'{name} does not explain single pixels: call explain without pixel')
