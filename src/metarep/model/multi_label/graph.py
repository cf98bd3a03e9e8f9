"""DeployedLabels: encoder and labels as one module, for an exported graph."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from metarep.model.graph import input_facts, refuse_no_graph
from metarep.model.multi_label.model import MultiLabelModel
from metarep.model.multi_label.rows import label_scores

OUTPUTS = ("probabilities", "scores")


class DeployedLabels(nn.Module):
    """Maps uint8 images of the encoder's size to the calibrated probability and the score of each label.

    Args:
        model: the model.

    Raises:
        MetarepError: the encoder is an ONNX graph itself.
    """

    def __init__(self, model: MultiLabelModel) -> None:
        super().__init__()
        refuse_no_graph(model.learner, model.rows)
        self.learner, self.calibration = model.learner, model.calibration
        kept: dict[object, str] = {}  # a tensor that the states of all labels share is stored once
        self.names: list[dict[str, str]] = []
        for state in model.states:
            self.names.append({})
            for name, tensor in state.items():
                same = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
                if same not in kept:
                    kept[same] = f"{name}_{len(kept)}"
                    self.register_buffer(kept[same], tensor)
                self.names[-1][name] = kept[same]

    def forward(self, images: UInt8[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b labels"], Float[Tensor, "b labels"]]:
        """Returns probabilities and scores of shape ``(b, labels)``.

        An image has a label if its probability is at least the label's threshold.
        """
        states = [{name: self.get_buffer(kept) for name, kept in names.items()} for names in self.names]
        scores = label_scores(self.learner, states, self.learner.prepare(images))
        return torch.sigmoid(self.calibration.scale * scores + self.calibration.shift), scores


def label_facts(model: MultiLabelModel) -> dict[str, object]:
    """Returns what a program must know to use the graph: labels, thresholds, input format and trust."""
    return {
        "labels": model.names,
        "thresholds": model.calibration.thresholds,
        **input_facts(model.learner.encoder.preprocess),
        "trust": model.trust.as_dict() if model.trust else None,
    }
