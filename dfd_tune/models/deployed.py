"""The student as it is used: from bytes of any height and width to class probabilities, in one file.

Not for: training, nor for the model registry (tracking.py), which is handed a `Deployed` made here. The
file is safetensors (https://github.com/huggingface/safetensors): tensors and a header of text. Loading it
runs no code, unless the backbone is a user's own and it is said that its text may be run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from dfd_tune.data.degradation import degrade, normalise
from dfd_tune.errors import UserError, cause_of
from dfd_tune.models.build import build_network
from dfd_tune.models.card import ModelCard, card_from_json
from dfd_tune.models.network import Network
from dfd_tune.models.super_resolution import FrontEnd, build_frontend
from dfd_tune.own_backbones import may_run, text_of
from dfd_tune.store import replacing

FRONTEND_PREFIX = "frontend."
CARD_KEY = "dfd_tune_card"
"""Under which the header of the file holds the card."""


class Deployed(nn.Module):
    """Degrade, normalise, classify: what a student expects of its input is part of the model.

    Any image becomes a low-resolution one; that of a camera which has `resolution` pixels is left as it is on
    the way down. Made in evaluation mode, into which it also puts `network`.

    Args:
        network: takes `channels` x image_size x image_size.
        mean: per channel, of the training images scaled to 0..1; its length is the number of channels.
        std: likewise, standard deviations.
        resolution: as for `degrade`, like `image_size`, `downsample` and `upsample`.
        frontend: the super-resolution front end that the student looks through, if it does.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: Network,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        resolution: int,
        image_size: int,
        downsample: str,
        upsample: str,
        frontend: FrontEnd | None = None,
    ):
        super().__init__()
        self.network = network
        self.frontend = frontend
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))
        self.channels = len(mean)
        self.resolution = resolution
        self.image_size = image_size
        self.downsample = downsample
        self.upsample = upsample
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Class probabilities, float32 (N, K), of images uint8 (N, H, W, C) of any height and width.

        Raises:
            ValueError: the images have another type, number of dimensions or number of channels.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != self.channels:
            raise ValueError(
                f"images are {images.dtype} of shape {tuple(images.shape)}, but must be torch.uint8 of shape "
                f"(images, height, width, {self.channels})."
            )
        low_res = degrade(
            images.permute(0, 3, 1, 2),
            resolution=self.resolution,
            image_size=self.image_size,
            downsample=self.downsample,
            upsample=self.upsample,
            restore=None if self.frontend is None else self.frontend.restore,
        )
        logits: Tensor = self.network(normalise(low_res, self.mean, self.std))
        return torch.softmax(logits.to(torch.float32), dim=1)


def save_student(
    path: str | os.PathLike[str], network: Network, card: ModelCard, frontend: FrontEnd | None = None
) -> None:
    """Write a student's weights, those of its front end, and its card into one file, atomically.

    The folder is made if need be. The front end's weights have names that begin with `frontend.`.

    Raises:
        TypeError, ValueError: the card's extras hold what JSON can't.
    """
    assert (frontend is None) == (card.frontend is None)
    state = network.state_dict()
    if frontend is not None:
        state |= {FRONTEND_PREFIX + name: tensor for name, tensor in frontend.state_dict().items()}
    # Contiguous, as safetensors refuses the channels-last weights of training on CUDA.
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    content = safetensors.torch.save(weights, metadata={"format": "pt", CARD_KEY: card.to_json()})
    with replacing(Path(path)) as draft:
        draft.write_bytes(content)


def network_of(card: ModelCard, seed: int) -> Network:
    """An untrained network as the card describes it; `seed` decides its weights."""
    return build_network(
        card.backbone,
        width=card.width,
        dropout=card.dropout,
        batch_norm=card.batch_norm,
        channels=card.channels,
        image_size=card.image_size,
        num_classes=len(card.classes),
        seed=seed,
    )


def load_deployed(path: str | os.PathLike[str], *, run_code: bool = False) -> tuple[Deployed, ModelCard]:
    """The model in a file that `save_student` wrote, on the CPU, ready for use, and its card.

    Args:
        path: the file.
        run_code: whether the Python text that the file of a student with a backbone of a user's own holds may be run.
            Where this process has that very text from elsewhere, as in the search itself, it is not asked for.

    Raises:
        UserError: there is no such file, it holds no such model, or one whose text may not be run.
    """
    text, weights = _read(path)
    if text is None:
        raise UserError(f"The model '{path}' holds weights without a card; name a student.safetensors of dfd-tune.")
    try:
        card = card_from_json(text)
        if card.source is not None and text_of(card.backbone) is None:
            if not run_code:
                raise UserError(
                    f"The model '{path}' has a backbone of its maker's own code ({card.backbone}), and using it runs "
                    "that code; if you trust it, say --run-code, or run_code=True from Python."
                )
            may_run(card.backbone, card.source)
        network, frontend = _networks_of(card, weights)
    except ValueError as error:
        raise UserError(f"The model '{path}' can't be used: {cause_of(error)}; make it anew.") from None
    deployed = Deployed(
        network,
        mean=card.mean,
        std=card.std,
        resolution=card.resolution,
        image_size=card.image_size,
        downsample=card.downsample,
        upsample=card.upsample,
        frontend=frontend,
    )
    return deployed, card


def _read(path: str | os.PathLike[str]) -> tuple[str | None, dict[str, Tensor]]:
    """The card's text, None if there is none, and the tensors of a safetensors file."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(CARD_KEY)
            return text, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        # safetensors' own text repeats the path.
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else cause_of(error)
        raise UserError(f"The model '{path}' can't be read: {reason}.") from None
    except safetensors.SafetensorError as error:
        raise UserError(
            f"The model '{path}' is not a safetensors file ({cause_of(error)}); "
            "name a student.safetensors that dfd-tune wrote."
        ) from None


def _networks_of(card: ModelCard, weights: dict[str, Tensor]) -> tuple[Network, FrontEnd | None]:
    """The student and its front end, with their weights."""
    network = network_of(card, seed=0)
    own = {name: tensor for name, tensor in weights.items() if not name.startswith(FRONTEND_PREFIX)}
    _load(network, own, card.backbone)
    rest = {name.removeprefix(FRONTEND_PREFIX): weights[name] for name in weights.keys() - own.keys()}
    if card.frontend is None:
        if rest:
            raise ValueError("it holds the weights of a front end that its card does not name")
        return network, None
    kind, size = card.frontend["kind"], card.frontend["size"]
    frontend = build_frontend(kind, channels=card.channels, size=size, seed=0)
    _load(frontend, rest, kind)
    return network, frontend


def _load(network: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    expected = {key: tensor.shape for key, tensor in network.state_dict().items()}
    if expected != {key: tensor.shape for key, tensor in weights.items()}:
        raise ValueError(f"its weights don't fit the {name} of its card")
    network.load_state_dict(weights)
