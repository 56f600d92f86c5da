"""How Tenfold uses Ray: connecting, resources, resumable shards, storage, progress."""
