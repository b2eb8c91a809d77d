"""The box coder, forth and back."""

from __future__ import annotations

import numpy as np
import pytest

from mirilla.model.box_coder import decode, encode
from mirilla.model.spec import BoxCoderSpec


@pytest.mark.parametrize("batch", [(), (1,), (2,), (3, 2)])
def test_what_is_encoded_is_decoded(batch):
    """Anchors broadcast over a batch."""
    random = np.random.default_rng(0)
    low = random.uniform(0, 0.5, (*batch, 7, 2))
    boxes = np.concatenate([low, low + random.uniform(0.1, 0.5, low.shape)], -1)
    corner = random.uniform(0, 0.5, (7, 2))
    anchors = np.concatenate([corner, corner + random.uniform(0.1, 0.5, corner.shape)], -1)
    coder = BoxCoderSpec()
    np.testing.assert_allclose(decode(encode(boxes, anchors, coder), anchors, coder), boxes, atol=1e-6)
