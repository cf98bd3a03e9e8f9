"""The scikit-learn estimator: its conventions, its labels, and its file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from metarep.errors import MetarepError
from metarep.model.classifier import FewShotClassifier

ENCODER = "omniglot-protonet"


@pytest.mark.slow
@parametrize_with_checks([FewShotClassifier(), FewShotClassifier(learner="neighbours")])
def test_scikit_learn_takes_it_for_one_of_its_own(estimator: FewShotClassifier, check) -> None:
    with np.errstate(all="ignore"):
        check(estimator)


@pytest.mark.slow
def test_the_estimator_works_with_images_in_scikit_learns_tools(letters: tuple[np.ndarray, list[str]]) -> None:
    images, names = letters
    pictures = [Image.fromarray(image[0]) for image in images]
    pipeline = make_pipeline(FewShotClassifier(ENCODER))
    assert cross_val_score(pipeline, images, names, cv=3).mean() > 0.8
    search = GridSearchCV(FewShotClassifier(ENCODER), {"learner": ["auto", "neighbours"]}, cv=2).fit(images, names)
    assert search.best_score_ > 0.7
    half = FewShotClassifier(ENCODER).fit(pictures[::2], names[::2])
    more = (
        FewShotClassifier(ENCODER).partial_fit(pictures[:40:2], names[:40:2]).partial_fit(pictures[40::2], names[40::2])
    )
    assert np.allclose(half.predict_proba(pictures), more.predict_proba(pictures), atol=1e-6)
    assert half.predict_proba(pictures).sum(1) == pytest.approx(1)
    distances, places = half.kneighbors(pictures[:10:2], n_neighbors=1)
    assert np.allclose(distances, 0, atol=1e-5)
    assert places[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert half.transform(pictures[:3]).shape == (3, 64)
    assert names[0] not in half.forget(names[0]).predict(pictures).tolist()


def test_labels_that_are_equal_are_one_class(letters: tuple[np.ndarray, list[str]]) -> None:
    images = letters[0][:6]
    mixed = FewShotClassifier(ENCODER).fit(images[:4], [0, 0, 1, 1]).partial_fit(images[4:5], np.array([1.0]))
    mixed.partial_fit(images[5:], np.array([True]))
    assert mixed.model_.gallery.counts.tolist() == [2, 4]
    assert mixed.predict(images[:1]).tolist() == [0]
    assert mixed.forget(1.0).classes_.tolist() == [0]
    with pytest.warns(DataConversionWarning, match="column-vector"):
        column = FewShotClassifier(ENCODER).fit(images, np.array(list("aabbcc")).reshape(-1, 1))
    assert column.predict(images[:1]).tolist() == ["a"]
    with pytest.raises(ValueError, match="1d array"):
        FewShotClassifier(ENCODER).fit(images, np.zeros((6, 2)))


def test_paths_may_stand_in_an_array(photos: Path) -> None:
    """As train_test_split gives them back."""
    paths = np.array(sorted(map(str, (photos / "fit").rglob("*.png"))))
    labels = np.array([Path(path).parent.name for path in paths])
    fitted = FewShotClassifier(ENCODER).fit(paths, labels)
    assert (fitted.predict(paths) == labels).mean() > 0.9
    with pytest.raises(MetarepError, match="into a list"):
        fitted.predict(str(paths[0]))
    with pytest.raises(MetarepError, match="at least one image"):
        fitted.set_params(batch_size=0).predict(paths)


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["auto", "linear"])
def test_a_classifier_saves_and_loads_without_pickle(
    learner: str, letters: tuple[np.ndarray, list[str]], tmp_path: Path
) -> None:
    images, names = letters
    fitted = FewShotClassifier(ENCODER, learner, false_alarms=0.2).fit(images, names)
    fitted.save(tmp_path / "model")
    again = FewShotClassifier.load(tmp_path / "model")
    assert again.get_params()["learner"] == learner
    assert np.array_equal(clone(again).fit(images, names).predict_proba(images), fitted.predict_proba(images))
    assert np.array_equal(again.predict_proba(images), fitted.predict_proba(images))
    assert np.array_equal(again.known(images), fitted.known(images))
    assert {path.suffix for path in (tmp_path / "model").iterdir()} <= {".safetensors", "", ".png", ".md"}
    with pytest.raises(MetarepError, match="fitted on features, but a model folder needs an encoder"):
        FewShotClassifier().fit(np.eye(4), [0, 0, 1, 1]).save(tmp_path / "other")
