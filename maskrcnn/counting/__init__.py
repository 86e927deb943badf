"""Counts of instances by groups of images and nights: what there is, what has changed, which shelves are empty."""
