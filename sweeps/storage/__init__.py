"""What lies behind a URI: folders, buckets, snapshots of trials."""
