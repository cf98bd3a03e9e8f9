"""Baseline: an ordinary classifier of all training classes, whose encoder is kept."""

from typing import Any, ClassVar, Literal, get_args

from torch import Generator, nn
from torch.nn import functional

from metarep.data.batch import Batch, LabelledBatch
from metarep.encoders import Encoder
from metarep.errors import MetarepError, above, one_of
from metarep.learners.prototypes import Prototypes
from metarep.methods.method import Method, Step

HeadKind = Literal["cosine", "linear"]


class Baseline(Method[LabelledBatch]):
    """Supervised baseline: classify all training classes, and solve a task by the cosine with class means.

    Gidaris, Komodakis, Dynamic Few-Shot Visual Learning without Forgetting, 2018; Chen et al., A Closer Look at
    Few-shot Classification, 2019 (Baseline and Baseline++). The classifier is dropped after training. Trap: training
    uses no tasks, and on photographs with one image a class it still beats methods that do. So a table without it
    misleads.

    Args:
        encoder: the representation to train.
        head: ``cosine``, the cosine of the features with a learned row for each class; ``linear``, a linear layer.
        temperature: divides the cosines, in training and when deployed.
        smoothing: label smoothing, the share of the label that is spread over all classes.
        classes: number of training classes; a training sets it.

    >>> from metarep import Preprocess, build_encoder
    >>> Baseline(build_encoder("conv4", Preprocess((28, 28), 1, (0.0,), (1.0,))), classes=100).head.weight.shape
    torch.Size([100, 64])
    """

    eats: ClassVar[type[Batch]] = LabelledBatch
    family: ClassVar[str] = "metric"
    paper: ClassVar[str] = "Gidaris, Komodakis 2018; Chen et al. 2019"
    defaults: ClassVar[dict[str, Any]] = {"ways": 64, "shots": 4}

    def __init__(
        self,
        encoder: Encoder,
        *,
        head: HeadKind = "cosine",
        temperature: float = 0.1,
        smoothing: float = 0.0,
        classes: int = 64,
    ) -> None:
        super().__init__()
        one_of("head", head, get_args(HeadKind))
        above("temperature", temperature)
        above("classes", classes, 1)
        if not 0 <= smoothing < 1:
            raise MetarepError(f"smoothing must be from 0 to below 1, not {smoothing}")
        self.temperature, self.smoothing = temperature, smoothing
        self.learner = Prototypes(encoder, "cosine", temperature)
        self.head = nn.Linear(encoder.dim, classes, bias=head == "linear")

    def step(self, batch: LabelledBatch, *, progress: float, generator: Generator) -> Step:  # noqa: ARG002
        """The cross-entropy of the training classes; ``right`` in the log is the accuracy on the batch, 0 to 1."""
        features, head = self.learner.embed(batch.images), self.head
        if batch.classes.device.type == "cpu":
            self._refuse_others(int(batch.classes.max()))
        if head.bias is not None:
            logits = head(features)
        else:
            rows = functional.normalize(head.weight, dim=-1)
            logits = functional.normalize(features, dim=-1) @ rows.mT / self.temperature
        loss = functional.cross_entropy(logits, batch.classes, label_smoothing=self.smoothing)
        return Step(loss, {"right": (logits.detach().argmax(-1) == batch.classes).float().mean()})

    def _refuse_others(self, last: int) -> None:
        if last >= self.head.out_features:
            raise MetarepError(
                f"the head of this baseline has classes={self.head.out_features}, and the batch has class {last}; do "
                "not set classes, and the training sets it"
            )
