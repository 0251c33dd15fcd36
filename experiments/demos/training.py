"""Training of a demo model: a warm-up of its tower, then questions packed behind each picture.

Where this says pictures, sounds and videos are meant as well.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from experiments.demos.trainee import Trainee

#: Steps of joint training after which the model is saved.
SAVE_EVERY = 500


@dataclass(frozen=True)
class Example:
    """A medium (a picture, a sound, a video) with the answers that hold for it, by question type."""

    medium: Any
    answers: dict[str, str]
    first: tuple[str, ...] = ()
    """Question types that are always asked."""


class Pictures(Protocol):
    """Training pictures: drawn by index, with what their questions and answers may be."""

    wordings: dict[str, list[str]]
    answers: list[str]
    classes: dict[str, list[str]]

    def __len__(self) -> int:
        """How many pictures there are."""
        ...

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        """A training variant of a picture."""
        ...


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run."""

    seed: int = 0
    warmup_steps: tuple[int, ...] = (1000, 1500)
    """Steps of the tower's warm-up, a cosine each."""
    steps: tuple[int, ...] = (900, 700)
    """Steps of joint training, a cosine each."""
    batch: int = 32
    """Pictures of a step of joint training."""
    warmup_batch: int = 64
    """Pictures of a step of the tower's warm-up."""
    packed: int = 3
    """Questions packed behind a picture."""
    tower_lr: float = 6e-3
    lr: tuple[float, ...] = (3e-3, 2e-3)
    """Peak learning rate of each cycle of joint training."""
    tower_share: float = 0.15
    """The tower's share of the learning rate in joint training."""
    adam_ratio: float = 0.4
    """AdamW's learning rate as a share of Muon's."""
    weight_decay: float = 0.01
    tower: str = "vision_tower"
    """What the names of the tower's parameters contain; alternatives are separated by `|`."""


@dataclass
class Progress:
    """What a run reports and what a later step may want of it."""

    log: Callable[[str], None]
    save: Callable[[], None]
    history: list[dict[str, float]] = field(default_factory=list)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by a Newton-Schulz iteration, for matrices, in fp32.

    Updates are scaled to the size of AdamW's, so that both share a learning rate.
    """

    def __init__(self, params: Sequence[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": 0.95, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """One update; matrices of one shape are orthogonalised together."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for parameters in shapes.values():
                moments = []
                for parameter in parameters:
                    state = self.state[parameter]
                    buffer = state.setdefault("momentum", torch.zeros_like(parameter))
                    gradient: Any = parameter.grad
                    buffer.lerp_(gradient, 1 - group["momentum"])
                    moments.append(torch.lerp(gradient, buffer, group["momentum"]))
                scale = 0.2 * math.sqrt(max(parameters[0].shape)) * group["lr"]
                for parameter, update in zip(
                    parameters, orthogonalize(torch.stack(moments)), strict=True
                ):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-scale)


def orthogonalize(matrices: Tensor, iterations: int = 5) -> Tensor:
    """About the nearest orthogonal matrices, `[n, rows, columns]`: Muon's quintic iteration."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


class Packer:
    """Puts several questions behind one picture, each blind to the others.

    A row is: prompt before the picture, the picture, padding, then `packed` slots of one question
    with its answer. Positions continue after the picture in every slot, so that each slot sees what
    it will see as a prompt of its own.
    """

    def __init__(
        self, trainee: Trainee, wordings: Mapping[str, Sequence[str]], answers: Sequence[str]
    ) -> None:
        self.trainee = trainee
        encode = trainee.tokenizer
        self.suffixes: dict[str, list[list[int]]] = {}
        for question, texts in wordings.items():
            self.suffixes[question] = []
            for text in texts:
                before, after = trainee.prompt(text).split(trainee.image_token)
                self.prefix = encode(before).input_ids
                self.suffixes[question].append(encode(after, add_special_tokens=False).input_ids)
        end = [encode.eos_token_id]
        self.answers = {
            text: encode(text, add_special_tokens=False).input_ids + end for text in answers
        }
        longest = max(len(ids) for options in self.suffixes.values() for ids in options)
        self.slot = longest + max(len(ids) for ids in self.answers.values()) - 1

    def slots(
        self, examples: Sequence[Example], packed: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Ids and labels of the slots, `[batch, packed, slot]`; -100 where nothing is asked."""
        ids = torch.zeros(len(examples), packed, self.slot, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for row, example in enumerate(examples):
            others = [question for question in example.answers if question not in example.first]
            rng.shuffle(others)
            for column, question in enumerate([*example.first, *others][:packed]):
                options = self.suffixes[question]
                suffix = options[int(rng.integers(len(options)))]
                answer = self.answers[example.answers[question]]
                tokens = torch.tensor(suffix + answer[:-1])
                ids[row, column, : len(tokens)] = tokens
                labels[row, column, len(suffix) - 1 : len(tokens)] = torch.tensor(answer)
        return ids, labels

    def loss(self, examples: Sequence[Example], packed: int, rng: np.random.Generator) -> Tensor:
        """Mean cross-entropy over the answers' tokens."""
        trainee = self.trainee
        ids, labels = self.slots(examples, packed, rng)
        media = trainee.media([example.medium for example in examples])
        prefix = trainee.embed(torch.tensor(self.prefix))
        heads = [torch.cat([prefix, features]) for features in media]
        lengths = torch.tensor([len(head) for head in heads])
        head = nn.utils.rnn.pad_sequence(heads, batch_first=True)
        embeddings = torch.cat([head, trainee.embed(ids.flatten(1))], 1)
        mask, positions = pack_mask(lengths, head.shape[1], packed, self.slot)
        positions = self.positions(examples, positions, head.shape[1])
        hidden = trainee.decode(embeddings, mask, positions)[:, head.shape[1] :]
        asked = labels.flatten(1) != -100
        return nn.functional.cross_entropy(trainee.logits(hidden[asked]), labels.flatten(1)[asked])

    def positions(
        self,
        examples: Sequence[Example],  # noqa: ARG002
        text: Tensor,
        head: int,  # noqa: ARG002
    ) -> Tensor:
        """The decoder's positions, from those of plain text; `head`: tokens before the slots."""
        return text


def pack_mask(lengths: Tensor, head: int, packed: int, slot: int) -> tuple[Tensor, Tensor]:
    """Additive mask `[batch, 1, pos, pos]` and positions `[batch, pos]` of packed rows."""
    total = head + packed * slot
    index = torch.arange(total)
    segment = torch.where(index < head, -1, (index - head) // slot)
    allowed = (index[:, None] >= index[None]) & (
        (segment[:, None] == segment[None]) | (segment[None] == -1)
    )
    real = (index[None] < lengths[:, None]) | (segment[None] >= 0)
    allowed = allowed[None] & (real[:, None] | torch.eye(total, dtype=torch.bool)[None])
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    inside = torch.where(segment >= 0, (index - head) % slot, 0)
    positions = torch.where(segment[None] >= 0, lengths[:, None] + inside[None], index[None])
    return mask[:, None], positions


def optimizers(
    named: Iterable[tuple[str, nn.Parameter]], lr: float, recipe: Recipe
) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for embeddings, heads, norms and biases."""
    matrices, others = [], []
    for name, parameter in named:
        hidden = parameter.ndim == 2 and "embed" not in name and "head" not in name
        (matrices if hidden else others).append(parameter)
    adam = torch.optim.AdamW(others, lr=lr * recipe.adam_ratio, betas=(0.9, 0.95), weight_decay=0.0)
    found = [Muon(matrices, lr, recipe.weight_decay), adam]
    for optimizer in found:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return found


def schedule(optimizers: Sequence[torch.optim.Optimizer], step: int, steps: int) -> None:
    """Linear rise over the first 2 %, then a cosine to zero."""
    rise = max(1, steps // 50)
    factor = (
        min(1.0, (step + 1) / rise)
        * 0.5
        * (1 + math.cos(math.pi * max(0, step - rise) / max(1, steps - rise)))
    )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor


def batches(size: int, batch: int, steps: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """`steps` batches of indices, epoch after epoch of a shuffled order."""
    order = rng.permutation(size)
    for _ in range(steps):
        if len(order) < batch:
            order = np.concatenate([order, rng.permutation(size)])
        yield order[:batch]
        order = order[batch:]


def warm_up(
    trainee: Trainee, pictures: Pictures, recipe: Recipe, progress: Progress, cycle: int
) -> None:
    """Train the tower alone, with throw-away linear heads on the training pictures' answers."""
    size, classes = len(pictures), pictures.classes
    steps = recipe.warmup_steps[cycle]
    rng = np.random.default_rng(recipe.seed + 1000 * cycle)
    if cycle == 0:
        chosen = rng.integers(size, size=600)
        trainee.whiten([pictures.draw(int(index), rng).medium for index in chosen])
    width = trainee.tower([pictures.draw(0, rng).medium]).shape[-1]
    heads = nn.ModuleDict(
        {f"on_{key}": nn.Linear(width, len(names)) for key, names in classes.items()}
    )
    codes = {key: {name: code for code, name in enumerate(names)} for key, names in classes.items()}
    tower = [(n, p) for n, p in trainee.model.named_parameters() if re.search(recipe.tower, n)]
    named = [*tower, *((f"head.{n}", p) for n, p in heads.named_parameters())]
    optims = optimizers(named, recipe.tower_lr, recipe)
    started = time.monotonic()
    for step, indices in enumerate(batches(size, recipe.warmup_batch, steps, rng)):
        examples = [pictures.draw(int(index), rng) for index in indices]
        features = trainee.tower([example.medium for example in examples])
        losses = {}
        for question, code in codes.items():
            target = [code.get(example.answers.get(question, ""), -100) for example in examples]
            losses[question] = nn.functional.cross_entropy(
                heads[f"on_{question}"](features), torch.tensor(target)
            )
        take_step(optims, torch.stack(list(losses.values())).sum(), step, steps)
        if step % 25 == 0:
            shown = " ".join(f"{question} {value.item():.2f}" for question, value in losses.items())
            progress.log(
                f"warm-up {cycle + 1}: {step}/{steps} {time.monotonic() - started:.0f}s {shown}"
            )


def take_step(optims: Sequence[torch.optim.Optimizer], loss: Tensor, step: int, steps: int) -> None:
    """Back-propagate and update at the schedule's learning rate."""
    schedule(optims, step, steps)
    loss.backward()
    parameters = [
        p for optimizer in optims for group in optimizer.param_groups for p in group["params"]
    ]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    for optimizer in optims:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def train(
    trainee: Trainee,
    packer: Packer,
    pictures: Pictures,
    recipe: Recipe,
    progress: Progress,
    cycle: int,
) -> None:
    """Train the whole model on packed questions."""
    rng = np.random.default_rng(recipe.seed + 1 + 1000 * cycle)
    named = list(trainee.model.named_parameters())
    tower = [(n, p) for n, p in named if re.search(recipe.tower, n)]
    others = [(n, p) for n, p in named if not re.search(recipe.tower, n)]
    steps, lr = recipe.steps[cycle], recipe.lr[cycle]
    optims = optimizers(others, lr, recipe)
    optims += optimizers(tower, lr * recipe.tower_share, recipe)
    started, recent = time.monotonic(), []
    for step, indices in enumerate(batches(len(pictures), recipe.batch, steps, rng)):
        examples = [pictures.draw(int(index), rng) for index in indices]
        loss = packer.loss(examples, recipe.packed, rng)
        take_step(optims, loss, step, steps)
        recent.append(loss.item())
        if step % 25 == 24:
            seconds, mean = time.monotonic() - started, float(np.mean(recent))
            progress.history.append({"step": step + 1, "loss": mean, "seconds": seconds})
            progress.log(f"joint {cycle + 1}: {step + 1}/{steps} {seconds:.0f}s loss {mean:.4f}")
            recent = []
        if (step + 1) % SAVE_EVERY == 0:
            progress.save()
