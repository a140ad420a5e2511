"""From pictures to codes, with the net and weights that made an index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dhn.search.index import Index


class Encoder:
    """The net of an index, loaded. Not safe to use from several threads at a time."""

    def __init__(self, index: Index, gpu: int | None = None) -> None:
        """Load the deploy net and the weights that the index names, their digests compared.

        Raises SearchError for an index without a net, and for files that are missing or are not those of the index.
        """
        raise NotImplementedError

    def encode(self, pictures: Sequence[bytes], names: Sequence[str] | None = None) -> np.ndarray:
        """Real-valued codes (Q, K) float32 of encoded images (JPEG, PNG, ...), prepared as extract_codes.py does it.

        names: what each is called in errors. Raises pictures.PictureError for bytes that are no image.
        """
        raise NotImplementedError
