"""Decibels, without torch: what only reads recorded numbers need not wait for it."""

import math


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of images on [-1, 1]."""
    return math.inf if mse == 0 else 10 * math.log10(4 / mse)
