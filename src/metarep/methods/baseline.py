"""Baseline: an ordinary classifier of all training classes, whose encoder is kept."""

from typing import Any, ClassVar, Literal, get_args

from jaxtyping import Float, Num
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep.data.batch import Batch, LabelledBatch
from metarep.encoders import Encoder
from metarep.errors import MetarepError, above, one_of
from metarep.learners.prototypes import Prototypes
from metarep.methods.method import Method, Step
from metarep.methods.student import Student

HeadKind = Literal["cosine", "linear"]


class Baseline(Student[LabelledBatch]):
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
        label_weight: with a teacher, the weight of the loss from labels.
        teacher_weight: with a teacher, the weight of the loss from its softened logits.
        teacher_temperature: with a teacher, divides its logits and our own.

    >>> import torch
    >>> from metarep import Preprocess
    >>> method = Baseline(Encoder(nn.Flatten(), Preprocess((1, 2), 1, (0.0,), (1.0,))), classes=2, temperature=0.5)
    >>> _ = nn.init.eye_(method.head.weight)
    >>> method.classify(torch.tensor([[[[255, 0]]]], dtype=torch.uint8)).tolist()  # cosines divided by the temperature
    [[2.0, 0.0]]
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
        label_weight: float = 0.5,
        teacher_weight: float = 0.5,
        teacher_temperature: float = 4.0,
    ) -> None:
        super().__init__(label_weight, teacher_weight, teacher_temperature)
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
        if batch.classes.device.type == "cpu":
            self._refuse_others(int(batch.classes.max()))
        logits = self.classify(batch.images)
        loss = functional.cross_entropy(logits, batch.classes, label_smoothing=self.smoothing)
        right = (logits.detach().argmax(-1) == batch.classes).float().mean()
        return Step(self.weighed(loss, logits, batch), {"right": right})

    def classify(self, images: Num[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """The logits of all training classes."""
        features, head = self.learner.embed(images), self.head
        if head.bias is not None:
            return head(features)
        rows = functional.normalize(head.weight, dim=-1)
        return functional.normalize(features, dim=-1) @ rows.mT / self.temperature

    def logits_of(self, teacher: Method[Any], batch: LabelledBatch) -> Float[Tensor, "n classes"]:
        assert isinstance(teacher, Baseline)
        return teacher.classify(batch.images)

    def refuse_teacher(self, teacher: Method[Any]) -> None:
        """Raise unless a teacher is a baseline with as many classes."""
        if not isinstance(teacher, Baseline):
            kind = type(teacher).__name__.lower()
            raise MetarepError(f"only a baseline has logits of all training classes, and this teacher is a {kind}")
        if teacher.head.out_features != self.head.out_features:
            raise MetarepError(
                f"this teacher has {teacher.head.out_features} classes, and this training "
                f"{self.head.out_features}; take a teacher that was trained on the same labels"
            )

    def _refuse_others(self, last: int) -> None:
        if last >= self.head.out_features:
            raise MetarepError(
                f"the head of this baseline has classes={self.head.out_features}, and the batch has class {last}; do "
                "not set classes, and the training sets it"
            )
