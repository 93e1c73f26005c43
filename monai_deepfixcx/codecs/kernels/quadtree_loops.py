"""The loops of `quadtree`, compiled. Importing this module imports Numba."""

import numpy as np
import numpy.typing as npt

from monai_deepfixcx.codecs.kernels.jit import jit

_DEEPEST = 9


@jit
def number_leaves(pixels: npt.NDArray[np.float64], threshold: float, by_entropy: bool) -> npt.NDArray[np.int64]:
    """Number the quadtree's leaves: ``[H, W]`` of leaf indices."""
    height, width = pixels.shape
    # A value's histogram bin covers [i/256, (i+1)/256); its look-up bin is the first grid point i/255 not below it.
    # Both sides in float32, so that an 8-bit value k/255 falls into bin k whatever it was stored in.
    bins = np.minimum((pixels * 256).astype(np.int64), 255)
    grid = np.linspace(0, 1, 256).astype(np.float32)
    look_up = np.searchsorted(grid, pixels.astype(np.float32).ravel()).reshape(height, width)
    leaves = np.empty((height, width), dtype=np.int64)
    count = 0
    stack = [(0, height, 0, width, 0)]
    while len(stack) > 0:
        top, bottom, left, right, depth = stack.pop()
        area = (bottom - top) * (right - left)
        if area == 0:
            continue
        split = False
        if area > 1 and depth < _DEEPEST:
            if by_entropy:
                histogram = np.zeros(258)
                for row in range(top, bottom):
                    for col in range(left, right):
                        histogram[bins[row, col] + 1] += 1
                smooth = histogram[:-2] + histogram[1:-1] + histogram[2:]
                probability = smooth / smooth.sum()
                entropy = 0.0
                for row in range(top, bottom):
                    for col in range(left, right):
                        p = probability[look_up[row, col]]
                        if p > 0:
                            entropy -= p * np.log2(p)
                split = entropy >= threshold
            else:
                split = pixels[top:bottom, left:right].std() > threshold
        if split:
            middle, centre = top + (bottom - top + 1) // 2, left + (right - left + 1) // 2
            for r0, r1 in ((top, middle), (middle, bottom)):
                for c0, c1 in ((left, centre), (centre, right)):
                    stack.append((r0, r1, c0, c1, depth + 1))
        else:
            leaves[top:bottom, left:right] = count
            count += 1
    return leaves
