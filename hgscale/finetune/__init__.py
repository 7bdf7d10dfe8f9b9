"""Fine-tuning: VM-HAN on relations between the entities of sentences and the objects of their images."""
