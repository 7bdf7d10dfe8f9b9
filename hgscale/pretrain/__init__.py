"""Pre-training: masked modelling on the samples of a world, and what is read back out of the model."""

from hgscale.verbs import be_callable

be_callable(__name__)
