"""One training step of DREAM: gradients a lane, added in the order of lanes whoever made them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from sklearn.metrics import average_precision_score
from torch import Tensor

from pipelines.fpcb.dream.objective import Objective
from pipelines.fpcb.dream.train_config import DreamConfig

_VALIDATION = 1 << 20  # in a seed where training has the epoch
_CHUNK = 64
_LOSS_SCALE = 1024.0  # float16 gradients would vanish without
_BASE_BATCH = 256


class Learner:
    """Networks, optimizer and schedule; every worker holds the same.

    Parameters
    ----------
    objective : Objective
    config : DreamConfig
    device : torch.device
    batch : int
        Items of a batch, all lanes together.
    total_steps : int
        Of all epochs.
    """

    def __init__(
        self,
        objective: Objective,
        config: DreamConfig,
        device: torch.device,
        batch: int,
        total_steps: int,
    ) -> None:
        self.objective, self.config, self.device = objective, config, device
        self.total_steps = total_steps
        self.half = half_precision(config.precision, device)
        self.scale = _LOSS_SCALE if self.half is torch.float16 else 1.0
        self.peak = config.learning_rate * math.sqrt(batch / _BASE_BATCH)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.networks = objective.networks()
        self.networks.to(device)
        self.parameters = [*self.networks.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.peak, weight_decay=config.weight_decay
        )

    def gradient(self, items: Tensor, epoch: int, step: int, lane: int) -> Tensor:
        """Return loss and gradient of one lane's part of a batch, one after the other."""
        generator = seeded(self.device, self.config.seed, epoch, step, lane)
        items = items.to(self.device, non_blocking=True)
        loss = self.objective.loss(self.networks, items, generator, self.half)
        found = torch.autograd.grad(loss * self.scale, self.parameters)
        return torch.cat([loss.detach().reshape(1), *(g.reshape(-1) / self.scale for g in found)])

    def apply(self, gradients: Tensor, step: int) -> float:
        """Step along the mean of all lanes' gradients, clipped; return the mean loss.

        Parameters
        ----------
        gradients : Tensor (lanes, 1 + parameters)
            From `gradient`; not finite ones (overflow in float16) skip the step.
        step : int
            Of all epochs.
        """
        total = gradients[0].clone()
        for one in gradients[1:]:  # never by a sum whose order a library chooses
            total += one
        total /= len(gradients)
        loss, flat = float(total[0]), total[1:].to(self.device)
        norm = float(flat.norm())
        if not math.isfinite(norm):
            return loss
        flat *= min(1.0, self.config.clip_norm / max(norm, 1e-12))
        at = 0
        for parameter in self.parameters:
            part = flat[at : at + parameter.numel()]
            parameter.grad = part.reshape(parameter.shape).clone()
            at += parameter.numel()
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak * warm_cosine(step, self.total_steps, self.config.warmup_share)
        self.optimizer.step()
        return loss

    @torch.no_grad()
    def judge(self, panels: Tensor, number: int) -> tuple[float, list[float], list[float]]:
        """Return summed loss, scores and labels of one piece of the validation panels."""
        self.networks.eval()
        loss, scores, labels = 0.0, [], []
        for at in range(0, len(panels), _CHUNK):
            part = panels[at : at + _CHUNK].to(self.device)
            generator = seeded(self.device, self.config.seed, _VALIDATION, number, at)
            one, score, label = self.objective.judge(self.networks, part, generator)
            loss += float(one) * len(part)
            scores += score.tolist()
            labels += label.tolist()
        self.networks.train()
        return loss, scores, labels

    def weights(self) -> bytes:
        """Return the networks' weights as safetensors."""
        state = self.networks.state_dict()
        return save({name: value.cpu().contiguous() for name, value in state.items()})

    def load_weights(self, data: bytes) -> None:
        """Take over weights."""
        self.networks.load_state_dict(load(data))


def validation_metrics(
    parts: Sequence[tuple[float, list[float], list[float]]],
) -> dict[str, float]:
    """Join what `Learner.judge` said of all pieces, in their order."""
    scores = [score for part in parts for score in part[1]]
    labels = [label for part in parts for label in part[2]]
    both = 0 < sum(labels) < len(labels)
    return {
        "val_loss": sum(part[0] for part in parts) / len(scores),
        "val_ap": float(average_precision_score(labels, scores)) if both else 0.0,
    }


def is_better(new: dict[str, Any], best: dict[str, Any] | None) -> bool:
    """Compare epochs by average precision, and by loss where that is the same in 4 digits."""
    if best is None:
        return math.isfinite(new["val_loss"])
    old_ap, new_ap = round(best["val_ap"], 4), round(new["val_ap"], 4)
    return new_ap > old_ap or (new_ap == old_ap and new["val_loss"] < best["val_loss"])


def warm_cosine(step: int, total: int, warmup_share: float) -> float:
    """Return the share of the peak learning rate: a linear rise, then half a cosine to 1 %."""
    warmup = max(1, round(warmup_share * total))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def seeded(device: torch.device, *key: int) -> torch.Generator:
    """Return a generator of its own for each key."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


def half_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the narrow type of mixed precision, None for float32 throughout."""
    if precision == "auto":
        precision = {"cuda": "bfloat16", "mps": "float16"}.get(device.type, "float32")
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
