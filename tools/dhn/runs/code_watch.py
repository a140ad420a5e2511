"""Codes that say nothing from the start: seen in the first 100 iterations of a training's log, by its displayed losses.

Two things go wrong with a pairwise loss, most often where features are not centred. All codes are equal and saturated:
TanH passes no gradient on, and each dissimilar pair costs its whole theta. Or all codes stay at 0: every pair costs
log 2, and the gradient is 0 too. Both hold for any batch, so that the loss does not move, which is what is watched.
"""

from __future__ import annotations

import math

from dhn.runs.log import OUTPUT, parse_display

UNTIL = 100  # iterations
SETTLED = 50  # from this iteration on a loss counts: the first steps of a healthy training may look like either
NEAR = 0.005  # of a loss to that of codes at 0
REMEDIES = (
    "lower the learning rate, start from weights that were pretrained on these images, or centre the features under "
    "the hash layer (by a BatchNorm, as prototxt/squeezenet.py does)"
)


def losses_of_disease(output: str, bits: int) -> tuple[float, float] | None:
    """The value of a loss where all codes are 0, and one that it passes only where they are saturated and equal.

    output: the loss's blob in the train net. None for one that is not watched. The losses are means over pairs. With
    equal codes the pairwise loss is bits x the dissimilar pairs' share of the weights, which is half or more in any
    data set that is worth hashing, the squared one 4 x that share; random saturated codes stay below a quarter of that.
    """
    return {"pairwise_loss": (math.log(2), bits / 4), "squared_similarity_loss": (1.0, 1.5)}.get(output)


class CodeWatch:
    """Reads the lines of a training's log. `sentence`: what is wrong with the codes, "" so far; it comes once."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.sentence = ""
        self._values: list[tuple[int, float]] = []  # (iteration, loss)
        self._name = ""
        self._iteration: int | None = None  # of the last display
        self._over = bits == 0  # a classifier has no codes

    def feed(self, line: str) -> str:
        """Take one more line. Returns the sentence with the line that decides, else ""."""
        if self._over:
            return ""
        if display := parse_display(line):
            if self._iteration is None and display.iteration >= SETTLED:
                self._over = True  # the training goes on from a snapshot
            self._iteration = display.iteration
            return ""
        output = OUTPUT.search(line)
        if output is None or output[1].lower() != "train" or losses_of_disease(output[2], self.bits) is None:
            return ""
        if self._iteration is None or self._iteration < SETTLED:
            return ""
        self._name = output[2]
        self._values.append((self._iteration, float(output[3])))
        if self._iteration >= UNTIL:
            self._over, self.sentence = True, self._diagnosis()
            return self.sentence
        return ""

    def _diagnosis(self) -> str:
        at_zero, saturated = losses_of_disease(self._name, self.bits) or (0.0, 0.0)
        first, values = self._values[0][0], [value for _, value in self._values]
        if all(abs(value - at_zero) < NEAR for value in values):
            what = f"codes stay at 0: {self._name} is that of codes of 0, {at_zero:.3f},"
        elif all(value > saturated for value in values):
            what = f"codes are all equal: {self._name} is above {saturated:g}, now {values[-1]:.1f},"
        else:
            return ""
        return f"{what} since iteration {first}. The training goes on, but it will hardly recover; {REMEDIES}"
