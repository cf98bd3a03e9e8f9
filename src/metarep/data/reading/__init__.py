"""From files to pixels: decoding, bit depths, and folders of images."""
