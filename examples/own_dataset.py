"""A data set of your own: any torch `Dataset` of (image, label), or a folder with one subfolder for each class.

Change: `Shapes`, for your own dataset; or say `load_dataset("folder:PATH", "train")` and "test" for a folder, and leave
out the rest. Classes of the test part must not be in the training part: tasks are of classes that were never seen.
"""

import torch
from PIL import Image, ImageDraw
from torch import Generator
from torch.utils.data import Dataset

from metarep import ImageBank, Preprocess, ProtoNet, Split, TrainSettings, build_encoder, draw_tasks, evaluate, train


class Shapes(Dataset[tuple[Image.Image, str]]):
    """Polygons: a class is a random closed line of five corners, an image is that line with its corners moved."""

    def __init__(self, classes: range, each: int = 12) -> None:
        self.items = [(number, copy) for number in classes for copy in range(each)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> tuple[Image.Image, str]:
        number, copy = self.items[place]
        corners = torch.rand(5, 2, generator=Generator().manual_seed(number)) * 18 + 5
        moved = corners + 2 * torch.randn(5, 2, generator=Generator().manual_seed(1000 * number + copy))
        image = Image.new("L", (28, 28), 255)
        ImageDraw.Draw(image).line([(x, y) for x, y in [*moved.tolist(), moved[0].tolist()]], fill=0, width=2)
        return image, f"shape {number}"


def split(name: str, classes: range) -> Split:
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
