"""Every byte in or out, by URI: a path, s3://, gs://, az:// or any fsspec URL."""
