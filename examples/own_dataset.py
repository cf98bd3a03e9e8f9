"""Train and evaluate on your own data set: any torch `Dataset` of (image, label), or a folder of class folders.

Replace `Shapes` by your own dataset. For a folder, call `load_dataset("folder:PATH", "train")`, and again with "test",
instead of `split`. No class may be in both parts, because test tasks must be of classes that were never seen.
"""

import torch
from PIL import Image, ImageDraw
from torch import Generator
from torch.utils.data import Dataset

from metarep import ImageBank, Preprocess, ProtoNet, Split, TrainSettings, build_encoder, draw_tasks, evaluate, train


class Shapes(Dataset[tuple[Image.Image, str]]):
    """Polygons: a class is a random polygon of five corners; its images are that polygon with the corners moved."""

    def __init__(self, classes: range, each: int = 12) -> None:
        self.items = [(number, copy) for number in classes for copy in range(each)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> tuple[Image.Image, str]:
        number, copy = self.items[row]
        corners = torch.rand(5, 2, generator=Generator().manual_seed(number)) * 18 + 5
        moved = corners + 2 * torch.randn(5, 2, generator=Generator().manual_seed(1000 * number + copy))
        image = Image.new("L", (28, 28), 255)
        ImageDraw.Draw(image).line([(x, y) for x, y in [*moved.tolist(), moved[0].tolist()]], fill=0, width=2)
        return image, f"shape {number}"


def split(name: str, classes: range) -> Split:
    """The images and labels of some classes, as one part of a data set."""
    bank, labels = ImageBank.from_dataset(Shapes(classes))
    return Split(bank, labels, name)


if __name__ == "__main__":
    torch.manual_seed(0)  # the weights that training starts from
    seen, new = split("shapes/train", range(100)), split("shapes/test", range(100, 140))
    method = ProtoNet(build_encoder("conv4", Preprocess.of(seen.bank), width=32))
    tasks = draw_tasks(new.labels, 300, ways=5, shots=1, queries=5, generator=Generator().manual_seed(0))
    print("before", evaluate(method.learner, new.bank, tasks, split=new.name))
    train(method, seen, TrainSettings(steps=60, ways=20, shots=1, queries=3))
    print("after ", evaluate(method.learner, new.bank, tasks, split=new.name))
