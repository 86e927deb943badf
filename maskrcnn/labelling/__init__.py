"""The batch job: images in, Parquet out, each image exactly once."""
