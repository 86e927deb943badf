"""Two predictions tables over the same images: what the second one has otherwise, and whether it is worse."""
