"""Banks on disk: images in memory-mapped shards with a manifest, how they are made, and how batches are read ahead."""
