"""How the mini world's vision tower is pretrained; the command is `pretrain_vision`."""

import argparse
import json
import logging
import random
import time
from dataclasses import dataclass
from multiprocessing import Pool

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionConfig
from transformers.models.clip import CLIPVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from playground.mini_world.draw import draw_person, draw_scene
from playground.mini_world.palette import SIDE
from playground.mini_world.world import (
    BACKGROUNDS,
    COLOURS,
    GRID,
    LOOK_CHOICES,
    SHAPES,
    SIZES,
    TRAITS,
    VIEW_CHOICES,
    Look,
    Scene,
    View,
    sample_look,
    sample_lookalike,
    sample_scene,
    sample_view,
)

logger = logging.getLogger("mini_world")

PATCH = 12
PATCHES = SIDE // PATCH
WIDTH = 128
TEMPERATURE = 0.1
PERSON_CHOICES = LOOK_CHOICES | VIEW_CHOICES
CLUSTER = 4
"""Pictures of a quartet: two views of one person, and one view each of two look-alikes."""


@dataclass(frozen=True)
class Pictures:
    """Scenes with a class per patch, people in quartets with attributes, traits and identity; pixels are
    bytes.
    """

    scenes: Tensor
    scene_labels: dict[str, Tensor]
    people: Tensor
    attributes: Tensor
    traits: Tensor


def patch_labels(scene: Scene) -> dict[str, np.ndarray]:
    """Per patch (8 x 8): class of shape, colour and size, 0 = nothing there."""
    labels = {name: np.zeros((PATCHES, PATCHES), dtype=np.int64) for name in ("shape", "colour", "size")}
    reach = PATCHES // GRID
    for thing in scene.things:
        where = np.s_[
            thing.row * reach : (thing.row + 1) * reach, thing.column * reach : (thing.column + 1) * reach
        ]
        labels["shape"][where] = 1 + SHAPES.index(thing.shape)
        labels["colour"][where] = 1 + COLOURS.index(thing.colour)
        labels["size"][where] = 1 + SIZES.index(thing.size)
    return labels


def make_scene(seed: str) -> tuple[np.ndarray, dict[str, np.ndarray], int]:
    """Pixels, patch labels and background of one scene."""
    scene = sample_scene(random.Random(seed))
    return np.asarray(draw_scene(scene)), patch_labels(scene), BACKGROUNDS.index(scene.background)


def make_quartet(seed: str) -> list[tuple[np.ndarray, list[int], tuple[float, ...]]]:
    """Pixels, attribute classes and traits of two views of somebody and of two look-alikes."""
    rng = random.Random(seed)
    look = sample_look(rng)
    people = [look, look, sample_lookalike(look, rng), sample_lookalike(look, rng)]
    return [make_person(person, sample_view(rng)) for person in people]


def make_person(look: Look, view: View) -> tuple[np.ndarray, list[int], tuple[float, ...]]:
    """Pixels, attribute classes (-100 where it does not show) and traits of one picture."""
    classes = [values.index(getattr(look, name)) for name, values in LOOK_CHOICES.items()]
    classes += [values.index(getattr(view, name)) for name, values in VIEW_CHOICES.items()]
    names = list(PERSON_CHOICES)
    if look.hair_style == "bald":
        classes[names.index("hair_colour")] = -100
    if view.hat == "none":
        classes[names.index("hat_colour")] = -100
    return np.asarray(draw_person(look, view)), classes, look.traits


def make_pictures(name: str, *, scenes: int, quartets: int, processes: int) -> Pictures:
    """Draw a set of pictures; the name makes the seeds of training and test differ."""
    with Pool(processes) as pool:
        drawn = pool.map(make_scene, [f"{name}/scene/{n}" for n in range(scenes)], chunksize=64)
        groups = pool.map(make_quartet, [f"{name}/people/{n}" for n in range(quartets)], chunksize=16)
    people = [person for group in groups for person in group]
    labels = {key: torch.tensor(np.stack([row[1][key] for row in drawn])).flatten(1) for key in drawn[0][1]}
    labels["background"] = torch.tensor([row[2] for row in drawn])
    return Pictures(
        scenes=torch.tensor(np.stack([row[0] for row in drawn])),
        scene_labels=labels,
        people=torch.tensor(np.stack([row[0] for row in people])),
        attributes=torch.tensor([row[1] for row in people]),
        traits=torch.tensor([row[2] for row in people]),
    )


class Heads(nn.Module):
    """What the features (I, P, V) are asked during pretraining; thrown away afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.ModuleDict(
            {
                "shape": nn.Linear(WIDTH, len(SHAPES) + 1),
                "colour": nn.Linear(WIDTH, len(COLOURS) + 1),
                "size": nn.Linear(WIDTH, len(SIZES) + 1),
            }
        )
        self.background = nn.Linear(WIDTH, len(BACKGROUNDS))
        self.attention = nn.Linear(WIDTH, len(PERSON_CHOICES))
        self.attributes = nn.ModuleList(nn.Linear(WIDTH, len(values)) for values in PERSON_CHOICES.values())
        self.traits = nn.Linear(WIDTH, len(TRAITS))
        self.identity = nn.Linear(WIDTH, 64)

    def person(self, features: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Attribute logits, traits (I, 12) and a unit identity vector (I, 64) of people's features."""
        weights = self.attention(features).softmax(dim=1)
        pooled = torch.einsum("ipa,ipv->iav", weights, features)
        logits = [head(pooled[:, number]) for number, head in enumerate(self.attributes)]
        mean = features.mean(dim=1)
        return logits, self.traits(mean), functional.normalize(self.identity(mean).float(), dim=-1)


def new_tower(seed: int) -> CLIPVisionModel:
    """A random tower whose position embedding tells rows and columns apart from the start."""
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=5,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        hidden_act="quick_gelu",
    )
    tower = CLIPVisionModel._from_config(config, attn_implementation="eager")
    quarter = WIDTH // 4
    rates = 1 / 20 ** (torch.arange(quarter) / quarter)
    angles = torch.arange(PATCHES)[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = waves[:, None].expand(-1, PATCHES, -1)
    grid = torch.cat([rows, rows.transpose(0, 1)], dim=-1).reshape(PATCHES * PATCHES, WIDTH)
    with torch.no_grad():
        tower.embeddings.position_embedding.weight[1:] = 0.3 * grid
    return tower


def normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Bytes (I, H, W, 3) to what the image processor gives: (I, 3, H, W)."""
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def features_of(tower: CLIPVisionModel, pixels: Tensor) -> Tensor:
    """The hidden state that LLaVA reads, without the class token: (I, 3, H, W) -> (I, P, V)."""
    return tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]


def identity_loss(vectors: Tensor) -> Tensor:
    """InfoNCE over quartets (Q x 4, 64): the two views of one person against everybody else in the batch."""
    rows = vectors.view(-1, CLUSTER, vectors.shape[-1])
    anchors, positives = rows[:, 0], rows[:, 1]
    others = rows[:, 1:].reshape(-1, vectors.shape[-1])
    logits = anchors @ others.T / TEMPERATURE
    targets = torch.arange(len(anchors)) * (CLUSTER - 1)
    assert torch.equal(others[targets], positives)
    return functional.cross_entropy(logits, targets)


def loss_of(tower: CLIPVisionModel, heads: Heads, batch: dict[str, Tensor]) -> Tensor:
    """The sum of all tasks for a batch of scenes and people's quartets."""
    num_scenes = len(batch["scenes"])
    features = features_of(tower, torch.cat([batch["scenes"], batch["people"]]))
    scene, person = features[:num_scenes], features[num_scenes:]
    loss = functional.cross_entropy(heads.background(scene.mean(1)).float(), batch["background"])
    for name, head in heads.patch.items():
        loss = loss + 2.0 * functional.cross_entropy(head(scene).float().flatten(0, 1), batch[name].flatten())
    logits, traits, identity = heads.person(person)
    for number, logit in enumerate(logits):
        loss = loss + 0.3 * functional.cross_entropy(logit.float(), batch["attributes"][:, number])
    loss = loss + functional.mse_loss(traits.float(), batch["traits"])
    return loss + 0.5 * identity_loss(identity)


def draw_batch(
    pictures: Pictures, *, num_scenes: int, num_quartets: int, mean: Tensor, std: Tensor
) -> dict[str, Tensor]:
    """A random batch of scenes and quartets of people."""
    scenes = torch.randint(len(pictures.scenes), (num_scenes,))
    quartets = torch.randint(len(pictures.people) // CLUSTER, (num_quartets,))
    people = (quartets[:, None] * CLUSTER + torch.arange(CLUSTER)).flatten()
    return {
        "scenes": normalise(pictures.scenes[scenes], mean, std),
        "people": normalise(pictures.people[people], mean, std),
        "attributes": pictures.attributes[people],
        "traits": pictures.traits[people],
    } | {name: labels[scenes] for name, labels in pictures.scene_labels.items()}


@torch.no_grad()
def score(
    tower: CLIPVisionModel, heads: Heads, pictures: Pictures, mean: Tensor, std: Tensor
) -> dict[str, float]:
    """Held-out accuracies: patches with a thing, attributes, R2 of traits, and who is who among the
    look-alikes.
    """
    scene = torch.cat([features_of(tower, normalise(part, mean, std)) for part in pictures.scenes.split(128)])
    person = torch.cat(
        [features_of(tower, normalise(part, mean, std)) for part in pictures.people.split(128)]
    )
    shown = pictures.scene_labels["shape"] > 0
    scores = {}
    for name, head in heads.patch.items():
        right = head(scene).argmax(-1) == pictures.scene_labels[name]
        scores[name] = right[shown].float().mean().item()
    logits, traits, identity = heads.person(person)
    for number, name in enumerate(PERSON_CHOICES):
        known = pictures.attributes[:, number] >= 0
        right = logits[number].argmax(-1) == pictures.attributes[:, number]
        scores[name] = right[known].float().mean().item()
    scores["traits_r2"] = 1 - ((traits - pictures.traits) ** 2).mean().item() / pictures.traits.var().item()
    rows = identity.view(-1, CLUSTER, identity.shape[-1])
    near = torch.einsum("qv,qkv->qk", rows[:, 0], rows[:, 1:])
    scores["identity_among_lookalikes"] = (near.argmax(-1) == 0).float().mean().item()
    return {name: round(value, 4) for name, value in scores.items()}


def optimizers(tower: CLIPVisionModel, heads: Heads) -> list[torch.optim.Optimizer]:
    """Muon for the tower's matrices, AdamW for the rest."""
    matrices = [weight for name, weight in tower.encoder.named_parameters() if weight.dim() == 2]
    chosen = {id(weight) for weight in matrices}
    rest = [weight for weight in [*tower.parameters(), *heads.parameters()] if id(weight) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=0.02, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.01),
    ]


def schedule(step: int, steps: int) -> float:
    """Share of the learning rate: up over 30 steps, down to a hundredth over the second half."""
    return min(1.0, (step + 1) / 30, max(0.01, (steps - step) / (0.5 * steps)))


def pretrain(args: argparse.Namespace) -> None:
    """Draw, train, score, save, with the options of `pretrain_vision`."""
    started = time.perf_counter()
    train = make_pictures("train", scenes=args.scenes, quartets=args.quartets, processes=args.processes)
    test = make_pictures("test", scenes=400, quartets=100, processes=args.processes)
    drawn = time.perf_counter() - started
    logger.info("%d scenes, %d people drawn in %.0f s", len(train.scenes), len(train.people), drawn)
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    mean, std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
    tower, heads = new_tower(args.seed), Heads()
    if args.start_from is not None:
        tower = CLIPVisionModel.from_pretrained(args.start_from, attn_implementation="eager")
    steppers = optimizers(tower, heads)
    bases = [stepper.param_groups[0]["lr"] * args.learning_rate_scale for stepper in steppers]
    for step in range(args.steps):
        for stepper, base in zip(steppers, bases, strict=True):
            stepper.param_groups[0]["lr"] = base * schedule(step, args.steps)
        with torch.autocast("cpu", torch.bfloat16):
            batch = draw_batch(
                train, num_scenes=args.batch_scenes, num_quartets=args.batch_quartets, mean=mean, std=std
            )
            loss = loss_of(tower, heads, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*tower.parameters(), *heads.parameters()], 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad()
        if (step + 1) % 200 == 0 or step + 1 == args.steps:
            scores = score(tower, heads, test, mean, std)
            seconds = time.perf_counter() - started
            logger.info("step %d, loss %.3f, %.0f s, %s", step + 1, loss.item(), seconds, scores)
    tower.save_pretrained(args.out)
    processor.save_pretrained(args.out)
    (args.out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
