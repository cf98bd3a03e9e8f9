"""Lines of text on the accuracy of a model, its weakest classes and its near copies."""

from metarep.errors import counted, plural
from metarep.model.model import Model

MOST = 5  # classes and groups that are printed


def trust_line(model: Model) -> str:
    """One line on the expected accuracy of a model, and how it was estimated."""
    trust, one = model.trust, "group" if any(model.gallery.groups) else "image"
    if len(model.gallery.names) < 2:
        return "accuracy: unknown; there is no second class to tell images from"
    if trust.accuracy is None or trust.interval is None:
        return (
            f"accuracy: unknown; no class has a second {one} to test with, and the encoder was not measured before, "
            "so probabilities are not set, and no image is called none of these"
        )
    if trust.source != "leave-one-out":
        low, high = (f"{end:.0f}" for end in trust.interval)
        return (
            f"accuracy: unknown, for no class has a second {one} to test with; somewhere between {low} and {high} %, "
            f"as with one image a class elsewhere: {trust.source}"
        )
    what = "one group, or image without a group," if one == "group" else "one"
    parts = [
        f"accuracy {trust} expected, by leaving {counted(trust.tested, 'image')} out, {what} of every class at a time"
    ]
    if model.tuning is not None:
        parts = [f"accuracy {trust} expected, by leaving {counted(trust.tested, 'image')} out of the tuning"]
        if model.tuning.names != model.gallery.names:
            parts += [f"measured on the {counted(len(model.tuning.names), 'class')} that it was tuned on"]
    if points := round(trust.lowered_by, 1):
        parts += [f"lowered by {points} points, for the same images have chosen the encoder"]
    untested = [int(n) for n, each in zip(model.gallery.counts, trust.classes, strict=False) if not each.tested]
    alone, copied = (sum((n == 1) is single for n in untested) for single in (True, False))
    copies = "images of one group or near copies only" if one == "group" else "near copies of one image only"
    for many, what in ((alone, "one image"), (copied, copies)):
        have, are = plural(many, "has", "have"), plural(many, "is", "are")
        parts += [f"{counted(many, 'class')} {have} {what} and {are} not tested"] if many else []
    if untested:
        parts[-1] += ", but estimated from the others"
    if trust.calibration != trust.source:
        few = f"{trust.tested} {plural(trust.tested, 'is', 'are')} too few to set probabilities by"
        parts += [f"{few}, which are those of {trust.calibration}" if trust.calibration else few]
    if trust.interval[0] <= (guess := 100 / len(model.gallery.names)):
        parts += [f"not surely better than guessing, which is right in {guess:.0f} %"]
    return "; ".join(parts)


def class_lines(model: Model) -> list[str]:
    """One line for each class that needs more images, the least accurate first."""
    named = zip(model.gallery.names, model.trust.classes, strict=False)
    weak = [(each.accuracy, name, each.tested) for name, each in named if each.needs and each.accuracy is not None]
    lines = [
        f"needs more images: {name}, {accuracy:.0f} % right of {counted(tested, 'image')} left out"
        for accuracy, name, tested in sorted(weak)[:MOST]
    ]
    more = len(weak) - MOST
    return lines + ([f"  and {more} more {plural(more, 'class')}: --json lists them"] if more > 0 else [])


def copy_lines(model: Model) -> list[str]:
    """One line for each group of near copies. The copies of a group are left out together in the test."""
    items = model.gallery.items
    lines = [
        f"near copies, counted as one: {', '.join(items[row] for row in rows[:3])}"
        + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
        for rows in model.copies[:MOST]
    ]
    return lines + (
        [f"  and {counted(len(model.copies) - MOST, 'more group')}: --json lists them"]
        if len(model.copies) > MOST
        else []
    )
