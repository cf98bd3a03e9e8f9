"""Augment: which transforms there are and how strong; from raw images to one random view of each."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Generator, Tensor

from metarep.augment.affine import draw_matrices
from metarep.augment.blur import blur, gaussian
from metarep.augment.check import check
from metarep.augment.colour import colour_map, recolour, solarise
from metarep.augment.cutout import cut_out
from metarep.augment.draws import Draws, draw_colour, draw_sigma
from metarep.augment.sampling import parts, sample


@dataclass(frozen=True)
class Augment:
    """Random views: an affine map with crop and flip, colour, blur, solarisation and cut-out, drawn for every image.

    The geometric part is one bilinear resampling, and the colour part one affine map of colours with one clamp at its
    end: before a clamp the four parts of a colour jitter commute, so there is no order of theirs to draw
    (:func:`metarep.augment.colour.colour_map`). Blur, solarisation and cut-out come after, in this order.

    Args:
        rotate: largest rotation in degrees, either way.
        scale: smallest and largest factor by which the content grows.
        shear: largest shear in degrees, either axis, either way.
        shift: largest shift, as a share of the side, either axis, either way.
        crop: smallest and largest share of the area for a random crop resized to the whole image; None for no crop.
        ratio: smallest and largest aspect ratio of the crop.
        flip: probability of a horizontal flip.
        cutout: side of a square that is set to the image's mean, as a share of the side; 0 for none.
        brightness, contrast, saturation: a factor is drawn from 1 - this to 1 + this, but none below 0.
        hue: largest turn of the hue either way, as a share of the whole circle; at most 0.5.
        jitter: probability that brightness, contrast, saturation and hue are changed, all four or none.
        grey: probability that all colour is taken away.
        blur: probability of a Gaussian blur.
        sigma: smallest and largest standard deviation of the blur, in pixels.
        kernel: length of the blur's kernel in pixels; odd.
        solarise: probability that values from ``threshold`` upwards are inverted.
        threshold: where solarisation starts, from 0 to 1.

    Raises:
        MetarepError: a setting that cannot be meant, such as a probability above 1.

    >>> photos = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
    >>> augment = Augment(crop=(0.2, 1.0), flip=0.5, brightness=0.4, hue=0.1, grey=0.2, blur=0.5)
    >>> augment(photos, Generator().manual_seed(0)).shape
    torch.Size([8, 3, 32, 32])
    """

    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    shift: float = 0.0
    crop: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    cutout: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter: float = 1.0
    grey: float = 0.0
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    kernel: int = 9
    solarise: float = 0.0
    threshold: float = 0.5

    def __post_init__(self) -> None:
        check(self)

    def __call__(
        self, x: Num[Tensor, "b c h w"], generator: Generator, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "b c h w"]:
        """Views of ``x`` in 0 to 1, each with its own draw; floats are clamped only where colours change.

        Pixels from beyond an edge repeat the edge.

        Args:
            x: uint8, or floats in 0 to 1.
            generator: on the CPU; it alone decides, and how much is drawn from it does not depend on the pixels.
            dtype: of the views; float32, or that of ``x`` where it is a float, if not told.

        Raises:
            DataError: neither 1 nor 3 channels where colours are to change, or an image smaller than its blur.
        """
        return self.apply(x, self.draw(len(x), generator, aspect=x.shape[-1] / x.shape[-2]), dtype)

    def draw(self, n: int, generator: Generator, aspect: float = 1.0) -> Draws:
        """Everything that is random about views of ``n`` images.

        Args:
            n: images.
            generator: on the CPU.
            aspect: width over height of the images.
        """
        matrix = self.matrices(n, generator, aspect)
        centre = torch.rand(n, 2, generator=generator) if self.cutout else None
        colour = sigma = inverted = None
        if self.recolours:
            spans = (self.brightness, self.contrast, self.saturation, self.hue)
            colour = draw_colour(n, generator, spans, self.jitter, self.grey)
        if self.blur:
            sigma = draw_sigma(n, generator, self.blur, self.sigma)
        if self.solarise:
            inverted = torch.rand(n, generator=generator) < self.solarise
        return Draws(matrix, colour, sigma, inverted, centre)

    def matrices(self, n: int, generator: Generator, aspect: float = 1.0) -> Float[Tensor, "n 2 3"]:
        """For each image the map from places in the view to places in the image, in units of -1 to 1.

        Args:
            n: images.
            generator: for their draws.
            aspect: width over height; turning and slanting are done in pixels, not in these units.
        """
        shape = (self.rotate, self.scale, self.shear, self.shift)
        return draw_matrices(n, generator, aspect, *shape, crop=self.crop, ratio=self.ratio, flip=self.flip)

    @property
    def recolours(self) -> bool:
        """Whether colours change."""
        return bool(self.grey or (self.jitter and any((self.brightness, self.contrast, self.saturation, self.hue))))

    @torch.no_grad()
    def apply(
        self, x: Num[Tensor, "b c h w"], draws: Draws, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "b c h w"]:
        """The views that ``draws`` names: those of a part of the images are that part of the views of all."""
        views = sample(x, draws.matrix)
        dtype = dtype or (x.dtype if x.is_floating_point() else torch.float32)
        if draws.move_only:
            return views.to(dtype)
        mix = lift = taps = None
        if draws.colour is not None:
            mix, lift = (part.to(views) for part in colour_map(draws.colour, x.shape[1]))
        if draws.sigma is not None:
            taps = gaussian(draws.sigma, self.kernel).to(views.dtype)
        done = views if dtype == views.dtype else torch.empty_like(views, dtype=dtype)
        for part in parts(views):
            view, out = views[part], done[part]
            mean = None if mix is None else view.mean((2, 3))
            if taps is not None and draws.sigma is not None:
                view = blur(view, draws.sigma[part], taps[part])
            if mix is not None and lift is not None and mean is not None:
                recolour(view, mix[part], lift[part], mean, out)
            elif view.data_ptr() != out.data_ptr():
                out.copy_(view)
            if draws.inverted is not None:
                solarise(out, draws.inverted[part], self.threshold)
            if draws.centre is not None:
                cut_out(out, draws.centre[part], self.cutout)
        return done
