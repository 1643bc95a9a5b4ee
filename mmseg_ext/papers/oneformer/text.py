"""Task sentences, texts of a training image, and the text branch, which only training needs."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...errors import UserError
from .attention import Attention, Mlp

TASKS = ('semantic', 'instance', 'panoptic')
CONTEXT_LENGTH = 77  # ids of a text
VOCABULARY = 49408


def check_task(task: str) -> str:
    """The task.

    Raises:
        UserError: It is none of ``TASKS``.
    """
    if task not in TASKS:
        raise UserError(f'task={task!r} is unknown: choose {", ".join(TASKS[:-1])} or {TASKS[-1]}')
    return task


@lru_cache(maxsize=4096)
def token_ids(text: str) -> tuple[int, ...]:
    """CLIP's ids of a text, from the start id to the end id; at most 77.

    A longer text is cut, and its last id is the end id.

    Raises:
        UserError: A package of the host's tokenizer is missing.
    """
    try:
        from mmseg.utils.tokenizer import tokenize
    except ImportError as error:
        raise UserError(
            f'OneFormer needs the package {error.name} to read texts: pip install ftfy regex'
        ) from error
    ids = tokenize(text, CONTEXT_LENGTH)[0].tolist()
    return tuple(ids[: ids.index(max(ids)) + 1])


def padded_ids(texts: Sequence[str], length: int = CONTEXT_LENGTH) -> Tensor:
    """Ids of texts, int64 (number of texts, length); zeros follow the end id."""
    rows = [token_ids(text) for text in texts]
    return torch.tensor([[*ids, *[0] * (length - len(ids))] for ids in rows])


def task_ids(tasks: Sequence[str]) -> Tensor:
    """Ids (N, 77) of the sentences of tasks."""
    return padded_ids([f'The task is {check_task(task)}' for task in tasks])


def image_texts(
    task: str, labels: Sequence[int], class_names: Sequence[str], length: int
) -> list[str]:
    """Texts of an image: one for each target, ordered by class, then a sentence that fills up.

    Args:
        task: Task of the image.
        labels: Class index of each target.
        class_names: Names of all classes.
        length: Number of texts; targets beyond it have no text.
    """
    counts = Counter(labels)
    texts = [f'a photo with a {class_names[i]}' for i in sorted(counts) for _ in range(counts[i])]
    article = 'an' if task == 'instance' else 'a'
    return [*texts[:length], *[f'{article} {task} photo'] * (length - len(texts))]


class TextBatch(NamedTuple):
    """Different texts ``ids`` (U, L), the position ``ends`` (U,) of each end id, and for every text
    of a batch its row in them, ``rows`` (N, T).
    """

    ids: Tensor
    ends: Tensor
    rows: Tensor

    @classmethod
    def of(cls, texts: Sequence[Sequence[str]]) -> 'TextBatch':
        """The texts of each image, with every different text once, cut after the longest."""
        flat = [text for image in texts for text in image]
        different = list(dict.fromkeys(flat))
        row_of = {text: row for row, text in enumerate(different)}
        lengths = [len(token_ids(text)) for text in different]
        rows = torch.tensor([[row_of[text] for text in image] for image in texts])
        ids = padded_ids(different, max(lengths, default=1))
        return cls(ids, torch.tensor(lengths) - 1, rows)

    def to(self, device: torch.device) -> 'TextBatch':
        """The batch on a device."""
        return TextBatch(*(x.to(device, non_blocking=True) for x in self))


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return x * (1.702 * x).sigmoid()


class TextLayer(nn.Module):
    """Block of CLIP's text encoder.

    Args:
        width: Width.
        num_heads: Number of heads.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), QuickGelu(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """X (U, L, width) to the same; a token sees only those before it."""
        normed = self.norm1(x)
        x = x + self.attn(normed, normed, normed, is_causal=True)
        return x + self.mlp(self.norm2(x))


class TextEncoder(nn.Module):
    """CLIP's text encoder, trained from scratch.

    Args:
        width: Width, a multiple of 64.
        num_layers: Number of layers.
    """

    def __init__(self, width: int = 256, num_layers: int = 6) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, width)
        self.positional_embedding = nn.Parameter(torch.empty(CONTEXT_LENGTH, width))
        self.layers: Any = nn.ModuleList(TextLayer(width, width // 64) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """CLIP's initialisation."""
        width = self.positional_embedding.shape[1]
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        output_std = width**-0.5 * (2 * len(self.layers)) ** -0.5
        for layer in self.layers:
            nn.init.normal_(layer.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(layer.attn.out_proj.weight, std=output_std)
            nn.init.normal_(layer.mlp[0].weight, std=(2 * width) ** -0.5)
            nn.init.normal_(layer.mlp[2].weight, std=output_std)

    def forward(self, ids: Tensor, ends: Tensor) -> Tensor:
        """Features (U, width) at the end ids.

        Args:
            ids: Ids (U, L) with L of at most 77.
            ends: Position (U,) of the end id.
        """
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.norm(x[torch.arange(len(x), device=x.device), ends])


class TextBranch(nn.Module):
    """Texts of the images to vectors, which are compared with the queries.

    Every different text is encoded once, and up to its end id only: later tokens do not reach it.

    Args:
        channels: Width C of the vectors.
        num_context: Number of learned vectors after the texts of an image.
        width: Width of the encoder, a multiple of 64.
        num_layers: Number of layers of the encoder.
    """

    def __init__(
        self, channels: int, *, num_context: int = 16, width: int = 256, num_layers: int = 6
    ) -> None:
        super().__init__()
        self.num_context = num_context
        self.encoder = TextEncoder(width, num_layers)
        self.projector = Mlp(width, channels, channels)
        if num_context:
            self.context = nn.Embedding(num_context, channels)

    def forward(self, batch: TextBatch) -> Tensor:
        """Vectors (N, T + num_context, C) of the texts (N, T) of a batch."""
        vectors = self.projector(self.encoder(batch.ids, batch.ends))[batch.rows]
        if not self.num_context:
            return vectors
        return torch.cat([vectors, self.context.weight.expand(len(vectors), -1, -1)], dim=1)
