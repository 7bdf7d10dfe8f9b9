"""Relations in sentences with images: MNRE, MORE and planted data as contexts; probes for leaks; scores."""
