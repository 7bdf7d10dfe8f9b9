"""Neural networks: encoders of hyperedges behind one face, and VM-HAN for relations in text and images."""
