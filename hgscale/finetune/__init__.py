"""Fine-tuning: VM-HAN on relations between the entities of sentences and the objects of their images."""

from hgscale.verbs import be_callable

be_callable(__name__)
