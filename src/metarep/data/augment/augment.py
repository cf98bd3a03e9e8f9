"""Augment: the settings of a random augmentation, and the function that turns images into augmented views."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Generator, Tensor

from metarep.data.augment.affine import draw_matrices
from metarep.data.augment.blur import blur, gaussian
from metarep.data.augment.check import check
from metarep.data.augment.colour import colour_map, recolour, solarise
from metarep.data.augment.cutout import cut_out
from metarep.data.augment.draws import Draws, draw_colour, draw_sigma
from metarep.data.augment.sampling import parts, sample


@dataclass(frozen=True)
class Augment:
    """Turns images into random views, with parameters of its own for every image.

    The transforms are an affine map with crop and flip, a colour change, blur, solarisation and cut-out; the last two
    are applied last, in this order. The affine map is one bilinear resampling. The colour change is one affine map of
    colours and one clamp. A colour jitter has four parts that commute as long as nothing is clamped between them, so
    no order is drawn for them (:func:`metarep.data.augment.colour.colour_map`).

    Args:
        rotate: largest rotation in degrees, in either direction.
        scale: smallest and largest factor by which the content is enlarged.
        shear: largest shear in degrees, along either axis and in either direction.
        shift: largest shift, as a share of the side, along either axis and in either direction.
        crop: smallest and largest share of the area of a random crop, which is resized to the whole image; None for
            no crop.
        ratio: smallest and largest aspect ratio of the crop.
        flip: probability of a horizontal flip.
        cutout: side of a square that is set to the mean of the image, as a share of the side; 0 for no square.
        brightness, contrast, saturation: strength ``s``; a factor is drawn from 1 - s to 1 + s, but never below 0.
        hue: largest rotation of the hue in either direction, as a share of the circle; at most 0.5.
        jitter: probability that brightness, contrast, saturation and hue change. All four change, or none does.
        grey: probability that the image becomes grey.
        blur: probability of a Gaussian blur.
        sigma: smallest and largest standard deviation of the blur, in pixels.
        kernel: length of the kernel of the blur in pixels; odd.
        solarise: probability that values from ``threshold`` upwards are inverted.
        threshold: least value that solarisation inverts, from 0 to 1.

    Raises:
        MetarepError: a setting is out of range, such as a probability above 1.

    >>> image, g = torch.tensor([[[[0, 0, 255]]]], dtype=torch.uint8), Generator().manual_seed(0)
    >>> Augment(flip=1.0)(image, g).tolist()  # mirrored; values are from 0 to 1 afterwards
    [[[[1.0, 0.0, 0.0]]]]
    >>> Augment(solarise=1.0, threshold=0.0)(image, g).tolist()  # every value is inverted
    [[[[1.0, 1.0, 0.0]]]]
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
        """Make one random view of each image, with values from 0 to 1.

        Pixels beyond an edge repeat the pixel at the edge. Floats are clamped only where colours change.

        Args:
            x: images as uint8, or as floats from 0 to 1.
            generator: a CPU generator. It decides everything that is random. How much is drawn from it does not
                depend on the pixels.
            dtype: the type of the views. By default that of ``x`` if it is a float type, and otherwise float32.

        Raises:
            DataError: the images have neither 1 nor 3 channels and colours are to change, or they are too small for
                the blur.
        """
        return self.apply(x, self.draw(len(x), generator, aspect=x.shape[-1] / x.shape[-2]), dtype)

    def draw(self, n: int, generator: Generator, aspect: float = 1.0) -> Draws:
        """Draw all random parameters of one view of each of ``n`` images.

        Args:
            n: the number of images.
            generator: a CPU generator.
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
        """Draw for each image the affine map from positions in the view to positions in the image.

        Args:
            n: the number of images.
            generator: a CPU generator.
            aspect: width over height of the images, because rotation and shear are angles between pixels.

        Returns:
            Matrices that map ``(x, y, 1)`` to ``(x, y)``. Coordinates are from -1 to 1 across the image.
        """
        shape = (self.rotate, self.scale, self.shear, self.shift)
        return draw_matrices(n, generator, aspect, *shape, crop=self.crop, ratio=self.ratio, flip=self.flip)

    @property
    def recolours(self) -> bool:
        """Whether the colour of an image may change: by jitter or to grey."""
        return bool(self.grey or (self.jitter and any((self.brightness, self.contrast, self.saturation, self.hue))))

    @torch.no_grad()
    def apply(
        self, x: Num[Tensor, "b c h w"], draws: Draws, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "b c h w"]:
        """Make the views with given random parameters.

        The view of an image depends on its own parameters only, so a batch may be augmented in parts.

        Args:
            x: images as uint8, or as floats from 0 to 1.
            draws: the parameters, from :meth:`draw`.
            dtype: the type of the views; see :meth:`__call__`.
        """
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
