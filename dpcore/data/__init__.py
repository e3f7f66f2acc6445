"""Datasets as Arrow shards, the synthetic people, importers, stored public views."""
