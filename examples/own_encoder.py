"""Train your own encoder: any `nn.Module` from normalised images (b, c, h, w) to features (b, dim).

Change `network`, for instance to a timm model made with `num_classes=0`. `Preprocess.of` takes size, mean and standard
deviation from the training images. For a pretrained network, write `Preprocess(size, channels, mean, std)` instead.
"""

import torch
from torch import Generator, nn

from metarep import Encoder, Preprocess, ProtoNet, TrainSettings, draw_tasks, evaluate, load_dataset, train


def layer(inputs: int, outputs: int) -> nn.Sequential:
    """A depthwise separable convolution that halves height and width."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride=2, padding=1, groups=inputs),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.GELU(),
    )


def network(channels: int, width: int = 32) -> nn.Module:
    """Features (b, dim) of images (b, channels, h, w); dim is width x h/8 x w/8, rounded up."""
    stem = nn.Conv2d(channels, width, 5, padding=2)
    return nn.Sequential(stem, layer(width, width), layer(width, width), layer(width, width), nn.Flatten())


if __name__ == "__main__":
    torch.manual_seed(0)  # the weights that training starts from
    seen, new = load_dataset("glyphs", "train"), load_dataset("glyphs", "test")
    encoder = Encoder(network(seen.bank.channels), Preprocess.of(seen.bank))
    print(f"{encoder.dim} features, {sum(weights.numel() for weights in encoder.parameters()):,} weights")
    method = ProtoNet(encoder)
    tasks = draw_tasks(new.labels, 300, ways=5, shots=1, queries=5, generator=Generator().manual_seed(0))
    print("before", evaluate(method.learner, new.bank, tasks, split=new.name))
    train(method, seen, TrainSettings(steps=60, ways=20, shots=1, queries=3))
    print("after ", evaluate(method.learner, new.bank, tasks, split=new.name))
