"""FewShotClassifier: a few-shot model as a scikit-learn estimator."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import Tensor

from metarep.data.class_names import warn_of_look_alikes
from metarep.data.labels import one_class
from metarep.data.reading.depth import Depth
from metarep.data.reading.photographs import are_features, notice_depth, read_images
from metarep.encoders.finite import refuse_lost_features
from metarep.errors import MetarepError, counted
from metarep.model.answers import Answer
from metarep.model.gallery import Gallery
from metarep.model.head import HEAD, without_level
from metarep.model.model import Model
from metarep.weights.named import Representation, load_representation

GIVEN = {"name": "prototypes"}  # the head for features that were computed outside


class FewShotClassifier(ClassifierMixin, TransformerMixin, BaseEstimator):
    """Classifies images from a few examples a class. The encoder is not trained, unless ``tune`` is set.

    ``X`` may be a list of paths, PIL images or bytes of image files, or one uint8 array of images. It may also be a
    table of features ``(n, dim)``, which is then used as it is, without an encoder. Trap: ``predict`` always names a
    class; :meth:`known` says whether the image is like any of the classes.

    Args:
        encoder: anything that :func:`metarep.weights.named.load_representation` takes, or a
            :class:`metarep.weights.representation.Representation`. A module or :class:`metarep.encoders.Encoder` of
            your own is copied, and the copy is used in evaluation mode.
        learner: ``auto``, or a name of ``LEARNERS``. ``auto`` takes the learner that was trained with the encoder;
            logistic regression for an encoder without one; class means for features.
        false_alarms: the share of images of known classes, between 0 and 1, that may be rejected as unknown.
        size: the side of the images in pixels, for encoders that take any size.
        batch_size: the number of images that are encoded at a time.
        depth: black and white of images of more than 8 bits, as a number of bits or ``"BLACK:WHITE"``. By default they
            are estimated from the images of the first call. See :mod:`metarep.data.reading.depth`.
        tune: whether the first call of ``fit`` or ``partial_fit`` also tunes the encoder on its images
            (:mod:`metarep.model.tuning`, which takes minutes), if that is better on images left out of it.
        mean, std: the mean and standard deviation of the images that a module of your own was trained on, one value a
            channel in units of 0 to 1; see :func:`metarep.weights.named.load_representation`.

    Attributes:
        classes_: the classes, sorted. The columns of ``predict_proba`` have this order.
        model_: the :class:`metarep.model.model.Model`.
        verdict_: with ``tune``, how the tuned encoder compares, and whether it was kept.
        adapting_: with ``unlabelled``, the same of the encoder that has learned from them.

    >>> images = np.random.default_rng(0).integers(0, 255, (6, 28, 28), dtype=np.uint8)
    >>> classifier = FewShotClassifier("omniglot-protonet").fit(images, ["a", "a", "a", "b", "b", "b"])
    >>> classifier.predict(images[:1]), classifier.predict_proba(images).shape
    (array(['a'], dtype='<U1'), (6, 2))
    """

    def __init__(
        self,
        encoder: Any = "auto",  # noqa: ANN401 - scikit-learn sets anything, and fit is to complain
        learner: Any = "auto",  # noqa: ANN401
        *,
        false_alarms: Any = 0.05,  # noqa: ANN401
        size: Any = None,  # noqa: ANN401
        batch_size: Any = 64,  # noqa: ANN401
        depth: Any = None,  # noqa: ANN401
        mean: Any = None,  # noqa: ANN401
        std: Any = None,  # noqa: ANN401
        tune: Any = False,  # noqa: ANN401
    ) -> None:
        self.encoder, self.learner, self.false_alarms = encoder, learner, false_alarms
        self.size, self.batch_size, self.depth, self.mean, self.std = size, batch_size, depth, mean, std
        self.tune = tune

    def fit(self, X: Any, y: Any, *, unlabelled: Any = None, groups: Any = None) -> "FewShotClassifier":  # noqa: ANN401
        """Learns classes from images ``X`` and their labels ``y``, and forgets all that was learned before.

        Labels that are the same name (:mod:`metarep.data.class_names`) are one class, such as ``café`` typed on two
        systems. The encoder first learns from the images ``unlabelled``, if there are any, and that is kept if it is
        better for the labelled ones (:func:`metarep.model.tuning.unlabelled.adapt`). ``groups`` is what each
        image shows, such as one specimen, or an empty text: images of a class and a group are left out together when
        the accuracy is estimated.

        Raises:
            BadNameError: a label cannot be the name of a class.

        Warns:
            LookAlikeWarning: the names of two classes look the same.
        """
        for name in ("model_", "classes_", "_names", "verdict_", "adapting_"):
            self.__dict__.pop(name, None)
        return self._learn(X, y, groups, unlabelled)

    def partial_fit(
        self,
        X: Any,  # noqa: ANN401
        y: Any,  # noqa: ANN401
        classes: Any = None,  # noqa: ANN401, ARG002
        groups: Any = None,  # noqa: ANN401
    ) -> "FewShotClassifier":
        """Learns more images, of known or of new classes. ``classes`` is ignored: any call may add new classes."""
        return self._learn(X, y, groups)

    def _learn(self, X: Any, y: Any, groups: Any, unlabelled: Any = None) -> "FewShotClassifier":  # noqa: ANN401
        first = not hasattr(self, "model_")
        if are_features(X):
            X, y = self._features(X, y, reset=first)
        elif first:
            self.__dict__.pop("n_features_in_", None)
        labels = column_or_1d(np.asarray(y), warn=True)
        if labels.dtype == object:
            for row, label in enumerate(labels):
                one_class(label, f"image {row}")
        check_classification_targets(labels)
        if len(labels) != len(X):  # for features, validate_data has checked it
            raise ValueError(
                f"{counted(len(X), 'image')} and {counted(len(labels), 'label')} do not match; give one label for each "
                "image"
            )
        groups = None if groups is None else ["" if each is None else str(each) for each in groups]
        model = self._fresh(are_features(X)) if first else self.model_
        depth = notice_depth(X, model.depth | Depth.of(self.depth)) if model.representation else model.depth
        if first and (self.tune or unlabelled is not None):
            model = self._with_learned_encoder(model, X, labels, groups, unlabelled, depth)
        rows = model.prepare(X, batch=self.batch_size, depth=depth)
        items = [str(x) if isinstance(x, str | Path) else f"image {i}" for i, x in enumerate(X)]
        known = np.concatenate([self.classes_, labels]) if not first else labels
        names, gallery = {} if first else dict(self._names), model.gallery
        for label in dict.fromkeys(labels.tolist()):
            names.setdefault(label, gallery.called(str(label)))
        called = [names[label] for label in labels.tolist()]
        self.model_: Model = model.changed(gallery.add(rows, called, items, groups=groups), depth)
        self.classes_, self._names = _one_each(np.unique(known), names), names
        warn_of_look_alikes(self.model_.gallery.names, set(self.model_.gallery.names) - set(gallery.names))
        return self

    def forget(self, label: Any) -> "FewShotClassifier":  # noqa: ANN401 - whatever labels are
        """Forgets a class and its images."""
        check_is_fitted(self)
        name = self._name(label)
        self.model_ = self.model_.changed(self.model_.gallery.without_class(name))
        self.classes_ = np.array([each for each in self.classes_ if self._name(each) != name])
        self._names = {each: called for each, called in self._names.items() if called != name}
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: ANN401
        """Returns the most probable class of each image, shape ``(n,)``."""
        best = self._scores(X).argmax(1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: ANN401
        """Returns the probabilities ``(n, classes)``, calibrated by leave-one-out if there are enough images."""
        scores = torch.from_numpy(self._scores(X))
        return (scores * self.model_.trust.scale).softmax(-1).numpy()

    def decision_function(self, X: Any) -> np.ndarray:  # noqa: ANN401
        """Returns the logits ``(n, classes)``; for two classes their difference ``(n,)``, positive for the second."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def answer(self, X: Any, neighbours: int = 3) -> list[Answer]:  # noqa: ANN401
        """Returns an answer for each image: label, probability, label set, and the ``neighbours`` nearest images."""
        return self.model_.answer(self._rows(X), neighbours)

    def known(self, X: Any) -> np.ndarray:  # noqa: ANN401
        """Returns for each image whether it is like any of the classes, as booleans of shape ``(n,)``.

        The threshold is ``known`` of :class:`metarep.model.trust.trust.Trust`.
        """
        return (self.model_.familiar(self._rows(X)) >= self.model_.trust.known).numpy()

    def transform(self, X: Any) -> np.ndarray:  # noqa: ANN401
        """Returns the features of the images, shape ``(n, dim)``."""
        return self.model_.features_of(self._rows(X)).numpy()

    def kneighbors(self, X: Any, n_neighbors: int = 5) -> tuple[np.ndarray, np.ndarray]:  # noqa: ANN401
        """Returns the cosine distances to the nearest learned images, and the rows of these in the order of learning.

        Both have the shape ``(n, n_neighbors)``, the nearest first; or fewer columns if fewer images were learned.
        """
        answers = self.answer(X, n_neighbors)
        rows = {number: row for row, number in enumerate(self.model_.gallery.ids.tolist())}
        near = [[1 - each.similarity for each in answer.neighbours] for answer in answers]
        return np.array(near), np.array([[rows[each.id] for each in answer.neighbours] for answer in answers])

    def save(self, path: str | Path) -> None:
        """Writes a model folder for ``metarep predict``, ``metarep serve`` and :meth:`load`. Nothing is pickled.

        The folder does not hold the images, because a classifier does not keep them. A module of your own is written as
        an ONNX graph (extra ``onnx``).

        Raises:
            MetarepError: the classifier was fitted on features and has no encoder; ``path`` exists already; or torch
                cannot export the module as a graph.
        """
        from metarep.model.folder import ModelFolder

        check_is_fitted(self)
        if self.model_.representation is None:
            raise MetarepError(
                "this classifier was fitted on features, but a model folder needs an encoder; fit it on images"
            )
        ModelFolder.create(Path(path), self.model_)

    @classmethod
    def load(cls, path: str | Path) -> "FewShotClassifier":
        """Reads a model folder that :meth:`save` or ``metarep fit`` wrote. Its labels are strings."""
        from metarep.model.folder import ModelFolder

        model = ModelFolder.open(Path(path)).model
        usual = without_level(model.head) == without_level(HEAD) or model.head == {"name": "trained"}
        name = "auto" if usual else model.head["name"]
        classifier = cls(model.representation or "auto", name, false_alarms=model.false_alarms)
        classifier.model_, classifier.classes_ = model, np.unique(model.gallery.names)
        classifier._names = {name: name for name in model.gallery.names}
        return classifier

    def _name(self, label: Any) -> str:  # noqa: ANN401
        """Returns the model's name of the class with this label. Equal labels, such as 1 and 1.0, are one class."""
        label = label.item() if isinstance(label, np.generic) else label
        return self._names[label] if label in self._names else self.model_.gallery.called(str(label))

    def _fresh(self, given: bool) -> Model:
        """Returns a model without classes; without an encoder if features are ``given``."""
        head = None if self.learner == "auto" else {"name": self.learner}
        if given:
            return Model(None, head or GIVEN, Gallery.empty(), false_alarms=self.false_alarms)
        representation = self.encoder
        if not isinstance(representation, Representation):
            representation = load_representation(representation, size=self.size, mean=self.mean, std=self.std)
        return Model(representation, head, Gallery.empty(), false_alarms=self.false_alarms)

    def _with_learned_encoder(
        self,
        model: Model,
        X: Any,  # noqa: ANN401
        labels: np.ndarray,
        groups: list[str] | None,
        unlabelled: Any,  # noqa: ANN401
        depth: Depth,
    ) -> Model:
        """Returns the model with an encoder that has learned from the images, if it is better."""
        from metarep.model.tuning.tune import tune_model
        from metarep.model.tuning.unlabelled import adapt_model

        if model.representation is None:
            what = "tune; fit on images, or with tune=False" if self.tune else "adapt; fit on images"
            raise MetarepError(f"features were given, so there is no encoder to {what}")
        preprocess, names = model.learner.encoder.preprocess, [str(label) for label in labels.tolist()]
        images = torch.cat(list(read_images(X, preprocess, batch=self.batch_size, depth=depth)))
        if unlabelled is not None:
            parts = list(read_images(unlabelled, preprocess, batch=self.batch_size, depth=depth))
            others = torch.cat([images[:0], *parts])
            model, self.adapting_ = adapt_model(model, images, names, others, groups=groups)
        if self.tune:
            model, self.verdict_ = tune_model(model, images, names, groups=groups)
        return model

    def _features(self, X: Any, y: Any = "no_validation", *, reset: bool) -> Any:  # noqa: ANN401
        """Returns the features as scikit-learn wants them. An error names the row that holds NaN or infinity."""
        try:
            return validate_data(self, X, y, reset=reset, dtype=np.float64)
        except ValueError:
            try:
                given = np.asarray(X)
                given = given.astype(np.float64) if given.dtype.kind in "fO" else np.zeros(0)
            except (ValueError, TypeError):
                given = np.zeros(0)  # the input is wrong for another reason
            refuse_lost_features(torch.from_numpy(given))
            raise

    def _rows(self, X: Any) -> Tensor:  # noqa: ANN401
        """Returns the prepared rows of the images, shape ``(n, *row)``."""
        check_is_fitted(self)
        if self.model_.representation is None:
            X = self._features(X, reset=False)
        return self.model_.prepare(X, batch=self.batch_size)

    def _scores(self, X: Any) -> np.ndarray:  # noqa: ANN401
        """Returns the logits of the images, shape ``(n, classes)``, with a column for each of ``classes_``."""
        rows = self._rows(X)
        index = {name: i for i, name in enumerate(self.model_.gallery.names)}
        return self.model_.scores(rows)[:, [index[self._name(label)] for label in self.classes_]].double().numpy()


def _one_each(labels: np.ndarray, names: dict[Any, str]) -> np.ndarray:
    """Keeps one of the sorted labels for each class: the one that is spelled as the name of the class, or the first."""
    kept: dict[str, Any] = {}
    called = [names.get(label, str(label)) for label in labels.tolist()]
    for label, name in zip(labels.tolist(), called, strict=True):
        if name not in kept or label == name:
            kept[name] = label
    return labels[[label == kept[name] for label, name in zip(labels.tolist(), called, strict=True)]]
